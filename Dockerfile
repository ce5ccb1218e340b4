# One image for every process of MusicCorp: the command chooses the process (`service warehouse`, `stubs`, `prepare`).
# dacapo/tests/deployment checks this file and docker-compose.yml against the programs.

FROM rust:1.95.0-slim-trixie AS build
# The Kafka client and the allocator are C.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package dacapo

# The same release of Debian as above, for the same C library.
FROM debian:trixie-20260803-slim
COPY --from=build /src/target/release/dacapo /usr/local/bin/dacapo
# A new volume that is mounted here gets its owner from the image.
RUN install --directory --owner=10001 --group=10001 /data
USER 10001:10001
WORKDIR /data
ENV DACAPO_DATA=/data DACAPO_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["dacapo", "health", "http://127.0.0.1:8080/readyz"]
ENTRYPOINT ["dacapo"]
