//! Raw scores -> [`Classification`]: probabilities as the output's meaning asks, the k best classes, their labels.

use std::cmp::Ordering;
use std::sync::Arc;

use super::infer::{Reading, Scores};
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
/// `row`: finite, one value a class, as many as `labels`, with the background before them where the model has one. The
/// background counts in the softmax and is then dropped: the shares of the classes stay what the model gave them and sum
/// to less than 1, and their indices begin after it, as MLPerf's harness counts. Scores of a multi-label model stand each
/// for itself and sum to anything. `top_k` above the number of classes returns them all.
#[must_use]
pub fn classify(row: &[f32], reading: Reading, labels: &Labels, top_k: usize) -> Classification {
    let classes = reading.classes(row);
    let probability = probabilities(row, reading.scores);
    // Each meaning grows with its value, so that the ranking needs no probabilities.
    let predictions = top_indices(classes, top_k)
        .into_iter()
        .map(|index| Prediction { index, label: Arc::clone(labels.get(index)), score: probability(classes[index]) })
        .collect();
    Classification { predictions }
}

/// The probability of each class, in the order of the index: the scores of [`classify`] for all classes.
#[must_use]
pub fn every_probability(row: &[f32], reading: Reading) -> Vec<f32> {
    let probability = probabilities(row, reading.scores);
    reading.classes(row).iter().map(|&value| probability(value)).collect()
}

/// What one value of `row` is as a probability.
fn probabilities(row: &[f32], scores: Scores) -> impl Fn(f32) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // softmax(x) = exp(x - max) / sum exp(x - max): the largest exponent is 0, so nothing overflows. Summed in f64,
    // because 21,843 f32 terms would lose a digit.
    let sum: f64 = match scores {
        Scores::Logits => row.iter().map(|&logit| f64::from((logit - max).exp())).sum(),
        Scores::Probabilities
        | Scores::LogProbabilities
        | Scores::MultiLabelLogits
        | Scores::MultiLabelProbabilities => 1.0,
    };
    #[expect(clippy::cast_possible_truncation, reason = "a probability is reported as f32")]
    move |value| match scores {
        Scores::Logits => (f64::from((value - max).exp()) / sum) as f32,
        Scores::Probabilities | Scores::MultiLabelProbabilities => value,
        Scores::LogProbabilities => value.exp(),
        // For very negative values exp overflows to infinity, and the quotient is 0 as it should be.
        Scores::MultiLabelLogits => 1.0 / (1.0 + (-value).exp()),
    }
}

/// Indices of the `top_k` largest values, largest first; equal values keep the order of the index.
#[must_use]
pub fn top_indices(scores: &[f32], top_k: usize) -> Vec<usize> {
    let better = |&a: &usize, &b: &usize| -> Ordering { scores[b].total_cmp(&scores[a]).then(a.cmp(&b)) };
    let mut indices: Vec<usize> = (0..scores.len()).collect();
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

    const SOFTMAX: Reading = Reading { scores: Scores::Logits, background: false };

    fn letters(n: usize) -> Labels {
        Labels::new((0..n).map(|i| format!("class {i}")))
    }

    /// The scores in the order of the classes.
    fn scores(row: &[f32], scores: Scores, background: bool) -> Vec<f32> {
        let n = row.len() - usize::from(background);
        let mut best = classify(row, Reading { scores, background }, &letters(n), n).predictions;
        best.sort_by_key(|prediction| prediction.index);
        best.into_iter().map(|prediction| prediction.score).collect()
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let best = classify(&[1000.0, 999.0, -1000.0], SOFTMAX, &letters(3), 3).predictions;
        let e = 1.0f32.exp();
        assert!((best[0].score - e / (e + 1.0)).abs() < 1e-6);
        assert!((best[1].score - 1.0 / (e + 1.0)).abs() < 1e-6);
        assert!(best[2].score.abs() < 1e-6);
        assert_eq!(scores(&[1000.0, -1000.0], Scores::MultiLabelLogits, false), [1.0, 0.0]);
    }

    #[test]
    fn equal_scores_keep_the_order_of_the_index() {
        let best = classify(&[0.0, 2.0, 2.0, 2.0], SOFTMAX, &letters(4), 2).predictions;
        assert_eq!(best.iter().map(|p| p.index).collect::<Vec<_>>(), [1, 2]);
        // Enough classes for an unstable selection to shuffle them.
        let best = classify(&[0.5; 1000], SOFTMAX, &letters(1000), 30).predictions;
        assert!(best.iter().map(|p| p.index).eq(0..30));
    }

    #[test]
    fn labels_follow_their_index_and_more_than_all_is_all() {
        let best = classify(&[0.0, 3.0], SOFTMAX, &Labels::new(["crane", "crane"]), 9).predictions;
        assert_eq!(best.iter().map(|p| (p.index, &*p.label)).collect::<Vec<_>>(), [(1, "crane"), (0, "crane")]);
    }

    #[test]
    fn probabilities_pass_as_they_are() {
        assert_eq!(scores(&[0.25, 0.75], Scores::Probabilities, false), [0.25, 0.75]);
        assert_eq!(scores(&[0.9, 0.8], Scores::MultiLabelProbabilities, false), [0.9, 0.8]);
    }

    #[test]
    fn the_background_keeps_its_share_and_the_classes_count_from_the_value_after_it() {
        let row = [0.5, 0.2, 0.3];
        let reading = Reading { scores: Scores::Probabilities, background: true };
        let best = classify(&row, reading, &Labels::new(["tench", "goldfish"]), 1).predictions;
        assert_eq!((best[0].index, &*best[0].label, best[0].score), (1, "goldfish", 0.3));
        assert_eq!(scores(&row.map(f32::ln), Scores::Logits, true).len(), 2);
        for (found, expected) in scores(&row.map(f32::ln), Scores::Logits, true).into_iter().zip([0.2, 0.3]) {
            assert!((found - expected).abs() < 1e-6, "{found}");
        }
    }

    proptest! {
        #[test]
        fn top_k_is_the_start_of_the_full_ranking(logits in prop::collection::vec(-50.0f32..50.0, 1..200), k in 1usize..220) {
            let labels = letters(logits.len());
            let all = classify(&logits, SOFTMAX, &labels, logits.len()).predictions;
            let every = every_probability(&logits, SOFTMAX);
            prop_assert!(all.iter().all(|one| one.score.to_bits() == every[one.index].to_bits()));
            let some = classify(&logits, SOFTMAX, &labels, k).predictions;
            prop_assert_eq!(&all[..k.min(all.len())], &some[..]);
            prop_assert!(all.windows(2).all(|pair| pair[0].score >= pair[1].score));
            let sum: f32 = all.iter().map(|p| p.score).sum();
            prop_assert!((sum - 1.0).abs() < 1e-4, "scores sum to {sum}");
        }

        /// Whichever part of softmax the graph has done, the client gets the same.
        #[test]
        fn softmax_inside_or_out_gives_the_same_scores(
            logits in prop::collection::vec(-30.0f32..30.0, 2..50),
            background: bool,
        ) {
            let max = logits.iter().copied().fold(f32::MIN, f32::max);
            let sum: f32 = logits.iter().map(|x| (x - max).exp()).sum();
            let inside: Vec<f32> = logits.iter().map(|x| (x - max).exp() / sum).collect();
            let logarithms: Vec<f32> = logits.iter().map(|x| x - max - sum.ln()).collect();
            let expected = scores(&logits, Scores::Logits, background);
            for found in [
                scores(&inside, Scores::Probabilities, background),
                scores(&logarithms, Scores::LogProbabilities, background),
            ] {
                // Exponents up to 60 magnify the rounding of a logarithm that many times.
                prop_assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} {expected:?}");
            }
        }

        #[test]
        fn labels_that_do_not_exclude_each_other_are_scored_one_by_one(
            logits in prop::collection::vec(-80.0f32..80.0, 1..50),
            other in -80.0f32..80.0,
        ) {
            let found = scores(&logits, Scores::MultiLabelLogits, false);
            prop_assert!(found.iter().all(|score| (0.0..=1.0).contains(score)));
            // sigmoid(x) is the softmax of x against 0.
            for (&logit, &score) in logits.iter().zip(&found) {
                let pair = scores(&[logit, 0.0], Scores::Logits, false);
                prop_assert!((pair[0] - score).abs() < 1e-6);
            }
            let mut changed = logits.clone();
            changed[0] = other;
            prop_assert_eq!(&scores(&changed, Scores::MultiLabelLogits, false)[1..], &found[1..]);
        }
    }
}
