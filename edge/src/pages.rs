//! The operator's own pages for an origin that does not answer.
//!
//! Arrives: a folder with `502.html`, `503.html` and `504.html`, any of them. Leaves: a page with the request's id in it, wherever it says
//! `{request_id}`. Goes wrong: a page that cannot be read, or is too large, keeps the edge from starting: better then than when it is needed.

use std::{collections::BTreeMap, fs, io, path::Path};

use http::StatusCode;

const REPLACEABLE: [StatusCode; 3] = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
/// A page is held in memory, and sent while something is broken.
const MAX_PAGE_BYTES: u64 = 256 * 1024;
const REQUEST_ID: &str = "{request_id}";

/// Pages by status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages(BTreeMap<u16, String>);

impl Pages {
    /// Reads the pages that are there.
    ///
    /// # Errors
    /// The first page that is there and cannot be used; and a folder without any, since its name is most likely wrong.
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        let mut pages = BTreeMap::new();
        for status in REPLACEABLE {
            let path = folder.join(format!("{}.html", status.as_u16()));
            match fs::metadata(&path) {
                Ok(found) if found.len() > MAX_PAGE_BYTES => {
                    return Err(io::Error::other(format!("{} has more than {MAX_PAGE_BYTES} bytes", path.display())));
                }
                Ok(_) => drop(pages.insert(status.as_u16(), fs::read_to_string(&path)?)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        match pages.is_empty() {
            true => Err(io::Error::other(format!("{} has none of 502.html, 503.html and 504.html", folder.display()))),
            false => Ok(Self(pages)),
        }
    }

    /// The page for a status, with the request's id.
    pub(crate) fn of(&self, status: StatusCode, request_id: &str) -> Option<String> {
        self.0.get(&status.as_u16()).map(|page| page.replace(REQUEST_ID, request_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_those_of_the_folder_and_a_folder_without_any_is_told() {
        let folder = tempfile::tempdir().unwrap();
        Pages::read(folder.path()).unwrap_err();
        Pages::read(&folder.path().join("absent")).unwrap_err();
        fs::write(folder.path().join("502.html"), "<p>{request_id}, {request_id}").unwrap();
        let pages = Pages::read(folder.path()).unwrap();
        assert_eq!(pages.of(StatusCode::BAD_GATEWAY, "7").as_deref(), Some("<p>7, 7"));
        assert_eq!(pages.of(StatusCode::GATEWAY_TIMEOUT, "7"), None);
        fs::write(folder.path().join("503.html"), vec![b'x'; 300 * 1024]).unwrap();
        Pages::read(folder.path()).unwrap_err();
    }
}
