//! Logits -> [`Classification`]: a stable softmax, the k best classes, their labels.

use std::cmp::Ordering;
use std::sync::Arc;

use super::types::{Classification, Prediction};

/// The names of a model's classes, by index. Names may repeat (ImageNet has two cranes); indices do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels(Vec<Arc<str>>);

impl Labels {
    /// Takes one name a class, in the order of the model's output.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = impl Into<Arc<str>>>) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }

    /// Number of classes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a model without classes is refused when it is opened")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The name of class `index`, which is below [`Labels::len`].
    #[must_use]
    pub fn get(&self, index: usize) -> &Arc<str> {
        &self.0[index]
    }

    /// The names, in the order of the index.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter()
    }
}

/// The `top_k` most probable classes, best first; equal scores keep the order of the index.
///
/// `logits`: finite, one a class, as many as `labels`. `top_k` above the number of classes returns them all.
#[must_use]
pub fn classify(logits: &[f32], labels: &Labels, top_k: usize) -> Classification {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // softmax(x) = exp(x - max) / sum exp(x - max): the largest exponent is 0, so nothing overflows. Summed in f64,
    // because 21,843 f32 terms would lose a digit.
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - max).exp())).sum();
    let predictions = top_indices(logits, top_k)
        .into_iter()
        .map(|index| {
            #[expect(clippy::cast_possible_truncation, reason = "a probability is reported as f32")]
            let score = (f64::from((logits[index] - max).exp()) / sum) as f32;
            Prediction { index, label: Arc::clone(labels.get(index)), score }
        })
        .collect();
    Classification { predictions }
}

fn top_indices(logits: &[f32], top_k: usize) -> Vec<usize> {
    let better = |&a: &usize, &b: &usize| -> Ordering { logits[b].total_cmp(&logits[a]).then(a.cmp(&b)) };
    let mut indices: Vec<usize> = (0..logits.len()).collect();
    if 0 < top_k && top_k < indices.len() {
        // Linear in the number of classes; only the k best are sorted.
        indices.select_nth_unstable_by(top_k - 1, better);
    }
    indices.truncate(top_k);
    indices.sort_unstable_by(better);
    indices
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn letters(n: usize) -> Labels {
        Labels::new((0..n).map(|i| format!("class {i}")))
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let best = classify(&[1000.0, 999.0, -1000.0], &letters(3), 3).predictions;
        let e = 1.0f32.exp();
        assert!((best[0].score - e / (e + 1.0)).abs() < 1e-6);
        assert!((best[1].score - 1.0 / (e + 1.0)).abs() < 1e-6);
        assert!(best[2].score.abs() < 1e-6);
    }

    #[test]
    fn equal_scores_keep_the_order_of_the_index() {
        let best = classify(&[0.0, 2.0, 2.0, 2.0], &letters(4), 2).predictions;
        assert_eq!(best.iter().map(|p| p.index).collect::<Vec<_>>(), [1, 2]);
        // Enough classes for an unstable selection to shuffle them.
        let best = classify(&[0.5; 1000], &letters(1000), 30).predictions;
        assert!(best.iter().map(|p| p.index).eq(0..30));
    }

    #[test]
    fn labels_follow_their_index_and_more_than_all_is_all() {
        let best = classify(&[0.0, 3.0], &Labels::new(["crane", "crane"]), 9).predictions;
        assert_eq!(best.iter().map(|p| (p.index, &*p.label)).collect::<Vec<_>>(), [(1, "crane"), (0, "crane")]);
    }

    proptest! {
        #[test]
        fn top_k_is_the_start_of_the_full_ranking(logits in prop::collection::vec(-50.0f32..50.0, 1..200), k in 1usize..220) {
            let labels = letters(logits.len());
            let all = classify(&logits, &labels, logits.len()).predictions;
            let some = classify(&logits, &labels, k).predictions;
            prop_assert_eq!(&all[..k.min(all.len())], &some[..]);
            prop_assert!(all.windows(2).all(|pair| pair[0].score >= pair[1].score));
            let sum: f32 = all.iter().map(|p| p.score).sum();
            prop_assert!((sum - 1.0).abs() < 1e-4, "scores sum to {sum}");
        }
    }
}
