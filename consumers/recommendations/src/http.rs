//! Recommendations over HTTP: `GET /albums/{sku}/bought-together?limit=N`.
//!
//! | answer | when |
//! |---|---|
//! | 200 | the album, and at most `limit` others (default 10, at most 100), most often bought with it first |
//! | 400 | the limit is invalid |
//! | 404 | the album was neither listed nor ordered |
//! | 503, Retry-After | the service has not caught up yet |

use axum::{
    Json, Router,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    routing::get,
};
use runtime::{http::Problem, projection::LiveView};

use crate::together::{BoughtTogether, Recommendation};

/// The default number of albums.
const DEFAULT_LIMIT: usize = 10;
/// The most albums in one reply.
const MAX_LIMIT: usize = 100;

/// The routes.
pub(crate) fn routes(view: LiveView<BoughtTogether>) -> Router {
    Router::new().route("/albums/{sku}/bought-together", get(bought_together)).with_state(view)
}

/// Whether it can answer, or why not. It continues to answer while brokers are unreachable.
fn is_usable(view: &LiveView<BoughtTogether>) -> Result<(), String> {
    let health = view.health();
    match (health.failed, health.caught_up) {
        (Some(reason), _) => Err(reason),
        (None, false) => Err(format!("the service has not caught up yet, {} records to go", health.behind)),
        (None, true) => Ok(()),
    }
}

async fn bought_together(
    State(view): State<LiveView<BoughtTogether>>,
    Path(sku): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Recommendation>, Problem> {
    let limit = limit(query.as_deref().unwrap_or_default()).map_err(bad_query)?;
    is_usable(&view).map_err(Problem::unavailable)?;
    let recommended = view.read(|together| together.with(&sku, limit));
    recommended.map(Json).ok_or_else(|| Problem::not_found("album of that sku"))
}

/// The limit in a query string, or its fault.
fn limit(query: &str) -> Result<usize, String> {
    let mut limit = DEFAULT_LIMIT;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        limit = match pair.split_once('=') {
            Some(("limit", number)) => match number.parse() {
                Ok(number) if (1..=MAX_LIMIT).contains(&number) => number,
                _ => return Err(format!("limit must be a whole number from 1 to {MAX_LIMIT}, not {number:?}")),
            },
            _ => return Err(format!("{pair:?} is not a known parameter; known is limit")),
        };
    }
    Ok(limit)
}

fn bad_query(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-query", "the query is not valid").detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_in_its_range_and_the_only_parameter() {
        assert_eq!(limit(""), Ok(DEFAULT_LIMIT));
        assert_eq!(limit("limit=1"), Ok(1));
        assert_eq!(limit("limit=100"), Ok(MAX_LIMIT));
        for bad in ["limit=0", "limit=101", "limit=-1", "limit=ten", "limit=", "limit", "limits=3"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
