//! The classes of ImageNet-1k, for the many published models that do not bring their names along.

use std::sync::LazyLock;

/// Index, WordNet id and names, one class a line, in the order of the challenge.
const TABLE: &str = include_str!("../../models/labels/imagenet-1k.tsv");

/// One class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class {
    /// WordNet id: `n` and eight digits.
    pub(super) wordnet: &'static str,
    /// Its names: `tench, Tinca tinca`.
    pub(super) names: &'static str,
}

static CLASSES: LazyLock<Vec<Class>> = LazyLock::new(|| {
    let parse = |line: &'static str| {
        let mut columns = line.split('\t').skip(1);
        Some(Class { wordnet: columns.next()?, names: columns.next()? })
    };
    TABLE.lines().map(|line| parse(line).expect("the compiled-in table has three columns")).collect()
});

/// All 1,000, by index.
pub(super) fn classes() -> &'static [Class] {
    &CLASSES
}

/// The names that belong to a WordNet id.
pub(super) fn names_of(wordnet: &str) -> Option<&'static str> {
    classes().iter().find(|class| class.wordnet == wordnet).map(|class| class.names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        assert_eq!(classes().len(), 1000);
        assert!(TABLE.lines().enumerate().all(|(n, line)| line.starts_with(&format!("{n}\tn"))));
        assert!(classes().iter().all(|class| class.wordnet.len() == 9 && !class.names.is_empty()));
        assert_eq!(names_of("n01440764"), Some("tench, Tinca tinca"));
        assert_eq!((classes()[134].names, classes()[517].names), ("crane", "crane"));
    }
}
