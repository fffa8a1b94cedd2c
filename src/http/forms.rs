//! The forms a body may take: the image itself, multipart with a part for each image, JSON with base64.
//!
//! Everything here computes and nothing waits: it runs in the pool that prepares images.

use axum::body::{Body, Bytes};
use axum::extract::multipart::Field;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use futures_util::FutureExt as _;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::error::{Problem, ProblemKind};

/// Padding is optional: browsers' and Python's encoders write it, URL-minded ones do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The images of one request. One can be wrong by itself while its neighbours are fine.
#[derive(Debug)]
pub(super) enum Upload {
    /// One image, to be answered by itself.
    One(Result<Bytes, Problem>),
    /// Several, to be answered as a list.
    Many(Vec<Result<Bytes, Problem>>),
}

/// What the content type says about the body as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// One part for each image. Keeps the content type, which names the boundary.
    Multipart(HeaderValue),
    /// `{"image": "<base64>"}` or `{"images": [...]}`.
    Json,
    /// The image itself.
    Raw,
}

impl Form {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let Some(content_type) = headers.get(header::CONTENT_TYPE) else { return Self::Raw };
        let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("multipart/form-data") {
            Self::Multipart(content_type.clone())
        } else if essence.eq_ignore_ascii_case("application/json") {
            Self::Json
        } else {
            Self::Raw
        }
    }

    /// Takes the body apart.
    pub(super) fn images(self, body: Bytes, images_max: usize) -> Result<Upload, Problem> {
        match self {
            Self::Multipart(content_type) => multipart(content_type, body, images_max),
            Self::Json => json(&body, images_max),
            Self::Raw => Ok(Upload::One(Ok(body))),
        }
    }
}

/// The body is an image, whatever its content type says.
pub(super) fn looks_like_an_image(bytes: &[u8]) -> bool {
    crate::pipeline::decode::sniff(bytes).is_some()
}

/// The parts of a form that have this name, with a file name or without.
pub(super) fn parts_named(
    name: &str,
    content_type: HeaderValue,
    body: Bytes,
    images_max: usize,
) -> Result<Vec<Bytes>, Problem> {
    let images = parts(content_type, body, images_max, |part| part.name() == Some(name))?;
    if images.is_empty() {
        let detail =
            format!("the multipart body has no part {name:?}; send one for each image: curl -F {name}=@cat.jpg");
        return Err(Problem::new(ProblemKind::EmptyBody, detail));
    }
    Ok(images)
}

fn multipart(content_type: HeaderValue, body: Bytes, images_max: usize) -> Result<Upload, Problem> {
    // A part without a file name is a field of the form around the files, such as a token.
    let images = parts(content_type, body, images_max, |part| part.file_name().is_some())?;
    if images.is_empty() {
        return Err(Problem::new(
            ProblemKind::EmptyBody,
            "the multipart body has no part with a file name; send one for each image: curl -F image=@cat.jpg",
        ));
    }
    Ok(match <[Bytes; 1]>::try_from(images) {
        Ok([one]) => Upload::One(Ok(one)),
        Err(images) => Upload::Many(images.into_iter().map(Ok).collect()),
    })
}

/// The parts that `is_image` says are images.
fn parts(
    content_type: HeaderValue,
    body: Bytes,
    images_max: usize,
    is_image: impl Fn(&Field<'_>) -> bool,
) -> Result<Vec<Bytes>, Problem> {
    let mut request = Request::new(Body::from(body));
    request.headers_mut().insert(header::CONTENT_TYPE, content_type);
    // The bound on the body was kept when it was read.
    DefaultBodyLimit::disable().apply(&mut request);
    let read = async {
        let broken =
            |text: String| Problem::new(ProblemKind::BadMultipart, format!("the multipart body is broken: {text}"));
        let mut form = Multipart::from_request(request, &()).await.map_err(|error| broken(error.body_text()))?;
        let mut images = Vec::new();
        while let Some(part) = form.next_field().await.map_err(|error| broken(error.body_text()))? {
            if !is_image(&part) {
                continue;
            }
            if images.len() == images_max {
                return Err(too_many_images(images_max));
            }
            images.push(part.bytes().await.map_err(|error| broken(error.body_text()))?);
        }
        Ok(images)
    };
    // The whole body is here, so reading its parts never waits.
    read.now_or_never().expect("a body in memory is always ready")
}

fn json(body: &[u8], images_max: usize) -> Result<Upload, Problem> {
    let bad = |detail: &str| {
        Problem::new(
            ProblemKind::BadJson,
            format!("{detail}; send {{\"image\": \"<base64>\"}} or {{\"images\": [...]}}"),
        )
    };
    let mut texts = Texts { images_max, ..Texts::default() };
    let mut parser = serde_json::Deserializer::from_slice(body);
    let parsed = parser.deserialize_map(&mut texts).and_then(|()| parser.end());
    if texts.too_many {
        return Err(too_many_images(images_max));
    }
    parsed.map_err(|error| bad(&format!("the body is not the JSON that is expected: {error}")))?;
    match (texts.image, texts.images) {
        (Some(image), None) => Ok(Upload::One(decode_base64(&image))),
        (None, Some(images)) if images.is_empty() => Err(bad("\"images\" is empty")),
        (None, Some(images)) => Ok(Upload::Many(images.iter().map(|text| decode_base64(text)).collect())),
        (Some(_), Some(_)) => Err(bad("the body has both \"image\" and \"images\"")),
        (None, None) => Err(bad("the body has no \"image\"")),
    }
}

/// The texts of a JSON body. Read by hand, so that a list of millions of empty strings ends at the bound.
#[derive(Default)]
struct Texts {
    images_max: usize,
    image: Option<String>,
    images: Option<Vec<String>>,
    too_many: bool,
}

impl<'de> Visitor<'de> for &mut Texts {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with \"image\" or \"images\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "image" if self.image.is_none() => self.image = Some(map.next_value()?),
                "images" if self.images.is_none() => map.next_value_seed(&mut *self)?,
                "image" | "images" => return Err(A::Error::custom(format_args!("duplicate field `{key}`"))),
                _ => return Err(A::Error::unknown_field(&key, &["image", "images"])),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut images = Vec::new();
        while let Some(text) = list.next_element::<String>()? {
            if images.len() == self.images_max {
                self.too_many = true;
                return Err(A::Error::custom("too many images"));
            }
            images.push(text);
        }
        self.images = Some(images);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &mut Texts {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

/// One image out of a JSON text.
pub(super) fn decode_base64(text: &str) -> Result<Bytes, Problem> {
    // `data:image/jpeg;base64,...` is what a browser's FileReader gives.
    let payload = match text.split_once(";base64,") {
        Some((scheme, payload)) if scheme.starts_with("data:") => payload,
        _ => text,
    };
    if payload.starts_with("http://") || payload.starts_with("https://") {
        return Err(Problem::new(
            ProblemKind::BadBase64,
            "the image is a URL; send its bytes, this server fetches nothing",
        ));
    }
    // The base64 tool wraps lines.
    let unwrapped: String;
    let payload = if payload.bytes().any(|byte| byte.is_ascii_whitespace()) {
        let mut text = String::with_capacity(payload.len());
        text.extend(payload.split_ascii_whitespace());
        unwrapped = text;
        &unwrapped
    } else {
        payload
    };
    BASE64
        .decode(payload)
        .map(Bytes::from)
        .map_err(|error| Problem::new(ProblemKind::BadBase64, format!("the image is not base64: {error}")))
}

pub(super) fn too_many_images(images_max: usize) -> Problem {
    Problem::new(
        ProblemKind::TooManyImages,
        format!(
            "the request has more than {images_max} images, at most {images_max} are allowed; send several requests"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_taken_with_and_without_padding_scheme_and_line_breaks() {
        for text in ["aGVsbG8=", "aGVsbG8", "data:image/png;base64,aGVsbG8=", "aGVs\nbG8=\n"] {
            assert_eq!(decode_base64(text).unwrap(), "hello", "{text:?}");
        }
        assert_eq!(decode_base64("aGVs*G8=").unwrap_err().kind(), ProblemKind::BadBase64);
    }

    #[test]
    fn a_list_is_read_up_to_its_bound_and_one_past_it_is_refused() {
        let of = |images: &str| json(format!("{{\"images\": [{images}]}}").as_bytes(), 2);
        assert!(matches!(of("\"aGk=\",\"aGk=\""), Ok(Upload::Many(images)) if images.len() == 2));
        assert_eq!(of("\"\",\"\",\"\"").unwrap_err().kind(), ProblemKind::TooManyImages);
    }

    #[test]
    fn what_follows_the_object_is_refused() {
        assert_eq!(json(b"{\"image\":\"aGk=\"} x", 2).unwrap_err().kind(), ProblemKind::BadJson);
        assert_eq!(json(b"{\"image\":\"aGk=\",\"image\":\"aGk=\"}", 2).unwrap_err().kind(), ProblemKind::BadJson);
    }
}
