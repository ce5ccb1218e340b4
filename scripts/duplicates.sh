#!/usr/bin/env bash
# No rule of the turn is written twice: compares the worker, the writer of a table, the simulation and the turn, line by line.
# Usage: scripts/duplicates.sh [DIRECTORY]   the tree to compare; by default this one. Exits with 1 if something is written twice.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
rustc --edition 2024 -C opt-level=1 -o "$folder/duplicates" "$here/duplicates.rs"
"$folder/duplicates" "${1:-$here/..}"
