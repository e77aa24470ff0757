//! Headers, whichever version of the `http` crate they come in: actix-web has one, tonic another.

/// The headers of a request.
pub trait Headers {
    /// Every line of this name, in order; `None` is one that is no text.
    fn texts(&self, name: &str) -> impl Iterator<Item = Option<&str>>;

    /// The only line of this name: of two, which is meant cannot be told.
    fn only_text(&self, name: &str) -> Option<&str> {
        let mut lines = self.texts(name);
        lines.next().flatten().filter(|_| lines.next().is_none())
    }
}

impl Headers for actix_web::http::header::HeaderMap {
    fn texts(&self, name: &str) -> impl Iterator<Item = Option<&str>> {
        self.get_all(name).map(|value| value.to_str().ok())
    }
}

impl Headers for http::HeaderMap {
    fn texts(&self, name: &str) -> impl Iterator<Item = Option<&str>> {
        self.get_all(name).into_iter().map(|value| value.to_str().ok())
    }
}
