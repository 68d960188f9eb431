//! The lists, to anybody: in parts, since there may be a million certificates on them, and many who read slowly.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream::unfold;

use super::Authority;
use super::revocation::Lists;
use crate::error::Result;
use crate::wire::LISTS_HEADER;

/// How much is taken of a list at once, in bytes.
const PART: usize = 64 << 10;

/// When what is revoked ends ([`crate::wire::RevokedEnds`]).
pub(super) fn ends(authority: Arc<Authority>) -> Response {
    let parts = unfold(Some((authority, None)), async |state| {
        let (authority, after) = state?;
        let (json, last) = authority.lists.ends(after);
        Some((Ok::<_, Infallible>(json), last.map(|last| (authority, Some(last)))))
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(parts)).into_response()
}

/// The lists that whoever asks has heard of, where they are kept; else those of now.
pub(super) async fn asked(authority: &Authority, headers: &HeaderMap) -> Result<Arc<Lists>> {
    let number = headers.get(LISTS_HEADER).and_then(|number| number.to_str().ok()?.parse().ok());
    let known = match number {
        Some(number) => authority.lists.of_number(number).await,
        None => None,
    };
    match known {
        Some(lists) => Ok(lists),
        None => authority.revocation_lists().await,
    }
}

/// With one of the lists, for as long as they are kept: whoever reads slowly, or not at all, holds a part and not the whole, of
/// which there is another each second. His answer breaks off then.
pub(super) fn of(
    kind: &'static str,
    lists: &Arc<Lists>,
    which: impl Fn(&Lists) -> &[u8] + Send + 'static,
) -> Response {
    let (length, lists) = (which(lists).len(), Arc::downgrade(lists));
    let part = move |from: usize| {
        let to = length.min(from.saturating_add(PART));
        let part = lists.upgrade().and_then(|lists| which(&lists).get(from..to).map(Bytes::copy_from_slice));
        let next = if part.is_some() { to } else { length };
        async move {
            let part = part.ok_or_else(|| io::Error::other("there are other lists by now"));
            (from < length).then_some((part, next))
        }
    };
    let mut response = ([(header::CONTENT_TYPE, kind)], Body::from_stream(unfold(0, part))).into_response();
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[test]
    fn a_list_is_read_whole_while_it_is_kept_and_no_further() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for length in [0, 1, PART, PART + 1, 3 * PART] {
            let krl: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let lists = Arc::new(Lists::of(krl.clone(), Vec::new()));
            let response = || of("x", &lists, |lists| &lists.krl);
            assert_eq!(response().headers()[header::CONTENT_LENGTH], length.to_string());
            let read = |response: Response| runtime.block_on(to_bytes(response.into_body(), usize::MAX));
            assert_eq!(read(response()).unwrap(), krl);
            let late = response();
            drop(lists);
            assert_eq!(read(late).is_err(), length > 0);
        }
    }
}
