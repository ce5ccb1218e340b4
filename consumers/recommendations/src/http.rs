//! Recommendations over HTTP: `GET /albums/{sku}/bought-together?limit=N`.
//!
//! | answer | when |
//! |---|---|
//! | 200 | the album, and at most `limit` others (10 if not given, at most 100), most often bought with it first |
//! | 400 | the limit is none |
//! | 404 | the album was neither listed nor ordered |
//! | 503, Retry-After | what was said before is still being read |

use axum::{
    Json, Router,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    routing::get,
};
use runtime::{http::Problem, projection::LiveView};

use crate::together::{Recommended, Together};

/// How many albums are answered where nothing else is asked for.
const USUAL_LIMIT: usize = 10;
/// How many albums are answered at most.
const MAX_LIMIT: usize = 100;

/// The routes.
pub(crate) fn routes(view: LiveView<Together>) -> Router {
    Router::new().route("/albums/{sku}/bought-together", get(bought_together)).with_state(view)
}

/// Why it should be asked nothing now, if so.
pub(crate) fn is_ready(view: &LiveView<Together>) -> Result<(), String> {
    is_usable(view)?;
    if view.health().is_disconnected { Err("no broker answers".to_owned()) } else { Ok(()) }
}

/// Why it answers nothing now, if so. While brokers are away it goes on answering what it knows.
fn is_usable(view: &LiveView<Together>) -> Result<(), String> {
    let health = view.health();
    match (health.failed, health.caught_up) {
        (Some(reason), _) => Err(reason),
        (None, false) => Err(format!("what was said before is still being read, {} records to go", health.behind)),
        (None, true) => Ok(()),
    }
}

async fn bought_together(
    State(view): State<LiveView<Together>>,
    Path(sku): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Recommended>, Problem> {
    let limit = limit(query.as_deref().unwrap_or_default()).map_err(bad_query)?;
    is_usable(&view).map_err(Problem::unavailable)?;
    let recommended = view.read(|together| together.with(&sku, limit));
    recommended.map(Json).ok_or_else(|| Problem::not_found("album of that sku"))
}

/// What the query asks for, or what is wrong with it.
fn limit(query: &str) -> Result<usize, String> {
    let mut limit = USUAL_LIMIT;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        limit = match pair.split_once('=') {
            Some(("limit", number)) => match number.parse() {
                Ok(number) if (1..=MAX_LIMIT).contains(&number) => number,
                _ => return Err(format!("limit must be a whole number from 1 to {MAX_LIMIT}, not {number:?}")),
            },
            _ => return Err(format!("{pair:?} is not known here; known is limit")),
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
    fn a_limit_is_a_number_in_its_range_and_nothing_else_is_asked() {
        assert_eq!(limit(""), Ok(USUAL_LIMIT));
        assert_eq!(limit("limit=1"), Ok(1));
        assert_eq!(limit("limit=100"), Ok(MAX_LIMIT));
        for bad in ["limit=0", "limit=101", "limit=-1", "limit=ten", "limit=", "limit", "limits=3"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
