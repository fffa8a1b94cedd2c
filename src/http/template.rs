//! Paths with parts that vary, for those the router cannot read: `/v1/models/{name}:predict`.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;

/// A path in which `{name}` stands for one segment or its beginning, and `{*name}`, last, for all that is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// Exactly this.
    Literal(String),
    /// Anything, up to a fixed ending.
    Varying { name: String, ending: String },
    /// All segments that are left, one at least.
    Rest { name: String },
}

impl Template {
    /// Takes a path apart.
    pub(super) fn new(path: &str) -> Self {
        Self { segments: path.split('/').map(Segment::new).collect() }
    }

    /// The path as OpenAPI writes it, which has no sign for parts with slashes.
    pub(super) fn described(&self) -> String {
        let described = self.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => text.clone(),
            Segment::Varying { name, ending } => format!("{{{name}}}{ending}"),
            Segment::Rest { name } => format!("{{{name}}}"),
        });
        described.collect::<Vec<_>>().join("/")
    }

    /// The names of what varies, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Varying { name, .. } | Segment::Rest { name } => Some(name.as_str()),
        })
    }

    /// What varies in `path`, if it is one of these.
    pub(super) fn captures(&self, path: &str) -> Option<Captured> {
        let mut captured = Captured::default();
        let mut left = Some(path);
        for segment in &self.segments {
            let rest = left?;
            let (first, more) = rest.split_once('/').map_or((rest, None), |(first, more)| (first, Some(more)));
            left = more;
            match segment {
                Segment::Literal(text) if text == first => {}
                Segment::Literal(_) => return None,
                Segment::Varying { name, ending } => captured.keep(name, without(first, ending)?)?,
                Segment::Rest { name } => {
                    left = None;
                    captured.keep(name, rest)?;
                }
            }
        }
        left.is_none().then_some(captured)
    }
}

impl Segment {
    fn new(text: &str) -> Self {
        let varying = text.strip_prefix('{').and_then(|text| text.split_once('}'));
        match varying {
            None => Self::Literal(text.to_owned()),
            Some((name, ending)) => match name.strip_prefix('*') {
                Some(name) => Self::Rest { name: name.to_owned() },
                None => Self::Varying { name: name.to_owned(), ending: ending.to_owned() },
            },
        }
    }
}

/// `segment` without `ending`, whose colon some clients escape.
fn without<'a>(segment: &'a str, ending: &str) -> Option<&'a str> {
    let escaped = |sign: &str| segment.strip_suffix(&ending.replacen(':', sign, 1));
    segment.strip_suffix(ending).or_else(|| escaped("%3A")).or_else(|| escaped("%3a"))
}

/// What varies in the path of a request that [`super::routes::Routes::under`] took apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Captured(Vec<(String, String)>);

impl Captured {
    fn keep(&mut self, name: &str, text: &str) -> Option<()> {
        // What is no UTF-8 is no model's name either.
        let text = percent_decode_str(text).decode_utf8_lossy().into_owned();
        (!text.is_empty()).then(|| self.0.push((name.to_owned(), text)))
    }

    /// What stands in place of `{name}`, unescaped; nothing if the path has no such part.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, text)| text)
    }
}

impl<S: Sync> FromRequestParts<S> for Captured {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captures(template: &str, path: &str) -> Option<Vec<String>> {
        Some(Template::new(template).captures(path)?.0.into_iter().map(|(_, text)| text).collect())
    }

    #[test]
    fn a_verb_behind_a_name_is_told_from_the_name() {
        let predict = "/v1/models/{name}:predict";
        assert_eq!(captures(predict, "/v1/models/resnet:predict").unwrap(), ["resnet"]);
        assert_eq!(captures(predict, "/v1/models/a:b:predict").unwrap(), ["a:b"]);
        assert_eq!(captures(predict, "/v1/models/resnet%3Apredict").unwrap(), ["resnet"]);
        for other in
            ["/v1/models/resnet", "/v1/models/:predict", "/v1/models/a/b:predict", "/v1/models/a:predict/", "/v1"]
        {
            assert_eq!(captures(predict, other), None, "{other}");
        }
        let version = "/v1/models/{name}/versions/{version}:predict";
        assert_eq!(captures(version, "/v1/models/a%20b/versions/2:predict").unwrap(), ["a b", "2"]);
    }

    #[test]
    fn the_rest_of_a_path_may_have_slashes() {
        assert_eq!(captures("/models/{*id}", "/models/microsoft/resnet-50").unwrap(), ["microsoft/resnet-50"]);
        assert_eq!(captures("/models/{*id}", "/models/"), None);
        assert_eq!(captures("/models/{*id}", "/models"), None);
        assert_eq!(Template::new("/models/{*id}").described(), "/models/{id}");
        assert_eq!(Template::new("/models/{name}/invoke").names().collect::<Vec<_>>(), ["name"]);
    }
}
