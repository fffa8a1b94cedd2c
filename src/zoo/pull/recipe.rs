//! The `residual.toml` that goes with a pulled model: its preset, and where it came from in comments.

use super::Wanted;
use super::receipt::Receipt;

/// The file's text. Only the preset means something to the program; a model without one is told so.
pub(super) fn text(wanted: &Wanted, receipt: &Receipt) -> String {
    let Receipt { repository, revision, commit, source, sha256, licence, .. } = receipt;
    let mut text =
        format!("# Written by `residual pull {wanted}`. Yours to change: a later pull leaves it alone.\n#\n");
    let mut line = |what: &str, value: &str| {
        // What others wrote must not end the comment.
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        text.push_str(&format!("# {what:<10}{value}\n"));
    };
    line("source", &format!("{source} of {repository} at {}", commit.as_ref().unwrap_or(revision)));
    line("sha256", sha256);
    line("licence", licence.as_deref().unwrap_or("not known: see the repository"));
    let entry = wanted.entry;
    let accuracy = |of: fn(&crate::zoo::catalog::Entry) -> Option<f64>| entry.and_then(of).map(|p| format!("{p} %"));
    if let Some(top1) = accuracy(|entry| entry.top1) {
        let top5 = accuracy(|entry| entry.top5).map_or(String::new(), |top5| format!(", top-5 {top5}"));
        line("published", &format!("top-1 {top1}{top5} on ImageNet-1k"));
    }
    if let Some(note) = entry.and_then(|entry| entry.note.as_ref()) {
        line("note", note);
    }
    text.push('\n');
    match entry.and_then(|entry| entry.preset.as_ref()) {
        Some(preset) => text.push_str(&format!("preset = \"{preset}\"\n")),
        None => text.push_str("# preset = \"...\"\n"),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(licence: &str) -> Receipt {
        Receipt {
            repository: "a/b".into(),
            revision: "main".into(),
            commit: Some("0a1b".into()),
            source: "m.onnx".into(),
            sha256: "ab".repeat(32),
            licence: Some(licence.into()),
            files: vec![],
        }
    }

    #[test]
    fn the_preset_is_a_key_and_the_rest_comments() {
        let text = text(&Wanted::parse("resnet50", None).unwrap(), &receipt("Apache-2.0"));
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(table.len(), 1);
        assert_eq!(table["preset"].as_str(), Some("onnx-zoo"));
        for said in
            ["pull resnet50-v1-12", "m.onnx of a/b at 0a1b", "licence   Apache-2.0", "top-1 74.97 %, top-5 92.33 %"]
        {
            assert!(text.contains(said), "{said:?} is missing in {text}");
        }
    }

    #[test]
    fn a_model_without_a_recipe_gets_none_and_nobody_elses_words_become_keys() {
        let text = text(&Wanted::parse("resnet50-caffe2-v1-9", None).unwrap(), &receipt("x\npreset = \"evil\""));
        assert!(toml::from_str::<toml::Table>(&text).unwrap().is_empty(), "{text}");
        assert!(text.contains("nobody wrote down"), "{text}");
    }
}
