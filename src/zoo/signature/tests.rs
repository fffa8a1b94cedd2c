use super::*;
use crate::graph::interface::Input;

const SAMPLE: SampleShape = SampleShape { height: 224, width: 200 };

fn tensor(name: &str, element: DataType, dims: &[usize]) -> Tensor {
    let dim = |&size: &usize| if size == 0 { Dim::Free(None) } else { Dim::Fixed(size) };
    Tensor { name: name.to_owned(), element: Some(element), dims: Some(dims.iter().map(dim).collect()) }
}

fn image(dims: &[usize], channels: Option<ChannelAxis>) -> Input {
    Input { tensor: tensor("image", DataType::Float, dims), channels, normalises: false }
}

/// An output `[N, width]` of its own root.
fn output_of(name: &str, width: usize, ending: Ending) -> Output {
    Output {
        tensor: tensor(name, DataType::Float, &[0, width]),
        ending,
        root: name.to_owned(),
        row: if width == 0 { Row::Open } else { Row::Known(width) },
    }
}

fn graph(outputs: impl IntoIterator<Item = Output>) -> Interface {
    Interface {
        inputs: vec![image(&[0, 3, 224, 200], Some(ChannelAxis::First))],
        outputs: outputs.into_iter().collect(),
    }
}

fn known(labels: impl Into<Option<usize>>) -> Known {
    Known { sample: SAMPLE, labels: labels.into(), multi_label: false }
}

fn decide(graph: &Interface, known: Known) -> Result<Signature, String> {
    signature(graph, known, &SignatureOverrides::default()).map_err(|error| error.to_string())
}

fn set(toml: &str) -> SignatureOverrides {
    toml::from_str(toml).unwrap()
}

/// Name and meaning of the output that is chosen among these.
fn chosen(labels: usize, outputs: impl IntoIterator<Item = Output>) -> (String, Scores) {
    let output = decide(&graph(outputs), known(labels)).unwrap().output;
    (output.name, output.scores)
}

fn scores(name: &str, width: usize) -> Output {
    output_of(name, width, Ending::Scores)
}

#[test]
fn scores_go_before_their_softmax_and_before_features_and_indices() {
    let indices = || {
        let tensor = tensor("index", DataType::Int64, &[0]);
        Output { tensor, ending: Ending::Indices, root: "index".to_owned(), row: Row::None }
    };
    let named = |name: &str, scores| (name.to_owned(), scores);
    let softmax = || Output { root: "logits".to_owned(), ..output_of("probabilities", 10, Ending::Softmax) };
    let features = || output_of("features", 10, Ending::Features);
    assert_eq!(chosen(10, [indices(), features(), softmax(), scores("logits", 10)]), named("logits", Scores::Logits));
    assert_eq!(chosen(10, [features(), indices(), softmax()]), named("probabilities", Scores::Probabilities));
    assert_eq!(chosen(10, [indices(), features()]), named("features", Scores::Logits));
    // The labels outweigh the ending.
    assert_eq!(chosen(10, [scores("other", 4), softmax()]), named("probabilities", Scores::Probabilities));
}

#[test]
fn the_ending_says_what_the_values_mean() {
    for (ending, expected, source) in [
        (Ending::Scores, Scores::Logits, ScoresSource::Graph),
        (Ending::Softmax, Scores::Probabilities, ScoresSource::Graph),
        (Ending::LogSoftmax, Scores::LogProbabilities, ScoresSource::Graph),
        (Ending::Sigmoid, Scores::MultiLabelProbabilities, ScoresSource::Graph),
        (Ending::Features, Scores::Logits, ScoresSource::Assumed),
        (Ending::Unknown { op: "Div".to_owned() }, Scores::Logits, ScoresSource::Assumed),
    ] {
        let output = decide(&graph([output_of("y", 10, ending)]), known(10)).unwrap().output;
        assert_eq!((output.scores, output.scores_source), (expected, source));
    }
    let multi = Known { multi_label: true, ..known(10) };
    let output = |ending| decide(&graph([output_of("y", 10, ending)]), multi).unwrap().output.scores;
    assert_eq!(output(Ending::Scores), Scores::MultiLabelLogits);
    // What the graph does is done.
    assert_eq!(output(Ending::Sigmoid), Scores::MultiLabelProbabilities);
}

#[test]
fn of_1001_classes_with_1000_labels_the_first_is_none() {
    let output = |labels: Option<usize>| decide(&graph([scores("y", 1001)]), known(labels)).map(|made| made.output);
    for labels in [Some(1000), None] {
        let output = output(labels).unwrap();
        assert_eq!((output.classes, output.background, output.width()), (1000, true, 1001), "{labels:?}");
    }
    let named = output(Some(1001)).unwrap();
    assert_eq!((named.classes, named.background), (1001, false));
    assert!(output(Some(999)).is_err());
    // Ten labels for eleven classes are a mistake, unless somebody says otherwise.
    let eleven = graph([scores("y", 11)]);
    assert!(
        decide(&eleven, known(10)).unwrap_err().ends_with("expected f32, f16 or f64 [N, 10], one score for each label")
    );
    let output = signature(&eleven, known(10), &set("[output]\nbackground = true")).unwrap().output;
    assert_eq!((output.classes, output.background), (10, true));
    let whole = signature(&graph([scores("y", 1001)]), known(None), &set("[output]\nbackground = false")).unwrap();
    assert_eq!(whole.output.classes, 1001);
}

#[test]
fn settings_outweigh_what_the_graph_says() {
    let two = graph([scores("a", 10), output_of("b", 10, Ending::Softmax)]);
    let overrides = set("[input]\nname = \"image\"\n[output]\nname = \"b\"\nscores = \"multi_label_logits\"");
    let output = signature(&two, known(10), &overrides).unwrap().output;
    assert_eq!(
        (output.name.as_str(), output.scores, output.scores_source),
        ("b", Scores::MultiLabelLogits, ScoresSource::Setting)
    );
    for (toml, expected) in [
        ("[input]\nname = \"x\"", "[input] name = \"x\"; the graph has image: float [?, 3, 224, 200]"),
        ("[output]\nname = \"x\"", "[output] name = \"x\"; the graph has a: float [?, 10] (raw scores), b:"),
    ] {
        let text = signature(&two, known(10), &set(toml)).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    assert!(toml::from_str::<SignatureOverrides>("[output]\nsoftmax = true").is_err());
    assert!(toml::from_str::<SignatureOverrides>("[input]\nlayout = \"chw\"").is_err());
}

#[test]
fn two_heads_are_a_choice_and_two_names_of_one_are_none() {
    let text = decide(&graph([scores("a", 10), scores("b", 10)]), known(10)).unwrap_err();
    assert!(text.contains("a: float [?, 10] (raw scores), b: float [?, 10] (raw scores) that could hold"), "{text}");
    let copy = Output { root: "a".to_owned(), ..scores("b", 10) };
    assert_eq!(decide(&graph([scores("a", 10), copy]), known(10)).unwrap().output.name, "a");
}

#[test]
fn raw_scores_and_the_softmax_of_others_are_a_choice() {
    for ending in [Ending::Softmax, Ending::LogSoftmax, Ending::Sigmoid] {
        let outputs = || graph([scores("embedding", 128), output_of("probs", 10, ending.clone())]);
        let text = decide(&outputs(), known(None)).unwrap_err();
        assert!(text.contains("embedding: float [?, 128] (raw scores), probs: float [?, 10]"), "{text}");
        for (labels, toml, expected) in [
            (Some(10), "", "probs"),
            (Some(128), "", "embedding"),
            (None, "[output]\nname = \"probs\"", "probs"),
            (None, "[output]\nname = \"embedding\"", "embedding"),
        ] {
            let output = signature(&outputs(), known(labels), &set(toml)).unwrap().output;
            assert_eq!(output.name, expected, "{labels:?}, {toml}");
        }
    }
    // As many classes each: labels do not decide.
    let same = graph([scores("a", 10), output_of("b", 10, Ending::Softmax)]);
    assert!(decide(&same, known(10)).unwrap_err().contains("that could hold the classes"));
}

#[test]
fn one_value_is_no_softmax() {
    let with = |ending, labels: Option<usize>, toml: &str| {
        signature(&graph([output_of("y", 1, ending)]), known(labels), &set(toml)).map(|made| made.output.scores)
    };
    for ending in [Ending::Scores, Ending::Softmax, Ending::LogSoftmax, Ending::Unknown { op: "Exp".to_owned() }] {
        for labels in [None, Some(1)] {
            let text = with(ending.clone(), labels, "").unwrap_err().to_string();
            assert!(text.contains("y: float [?, 1]"), "{text}");
            assert!(text.contains("set scores = \"multi_label_logits\" under [output]"), "{text}");
        }
    }
    let told = with(Ending::Scores, None, "[output]\nscores = \"multi_label_logits\"");
    assert_eq!(told, Ok(Scores::MultiLabelLogits));
    assert_eq!(with(Ending::Sigmoid, None, ""), Ok(Scores::MultiLabelProbabilities));
    let multi = Known { multi_label: true, ..known(1) };
    assert_eq!(decide(&graph([scores("y", 1)]), multi).unwrap().output.scores, Scores::MultiLabelLogits);
    // A background beside the one class takes the rest of the probability.
    let pair = signature(&graph([scores("y", 2)]), known(1), &set("[output]\nbackground = true")).unwrap();
    assert_eq!((pair.output.classes, pair.output.scores), (1, Scores::Logits));
}

#[test]
fn features_are_no_classes_unless_somebody_says_so() {
    let features = |width| graph([output_of("pooled", width, Ending::Features)]);
    let text = decide(&features(2048), known(None)).unwrap_err();
    assert!(text.starts_with("the graph has outputs pooled: float [?, 2048] (features) and no classifier"), "{text}");
    assert!(decide(&features(2048), known(2048)).is_ok());
    for toml in ["[output]\nname = \"pooled\"", "[output]\nscores = \"logits\""] {
        assert!(signature(&features(2048), known(None), &set(toml)).is_ok(), "{toml}");
    }
    // SqueezeNet pools the scores of its last convolution behind a ReLU.
    assert_eq!(decide(&features(1000), known(None)).unwrap().output.classes, 1000);
}

#[test]
fn an_output_of_unknown_width_takes_that_of_the_labels() {
    let open = graph([scores("y", 0)]);
    assert_eq!(decide(&open, known(7)).unwrap().output.classes, 7);
    assert!(decide(&open, known(None)).unwrap_err().contains("give labels, one a class"));
    let with_background = signature(&open, known(7), &set("[output]\nbackground = true")).unwrap().output;
    assert_eq!((with_background.classes, with_background.width()), (7, 8));
}

#[test]
fn softmax_over_another_axis_is_refused_unless_somebody_knows_better() {
    let wrong = graph([output_of("y", 10, Ending::WrongAxis { op: "Softmax".to_owned(), axis: 0 })]);
    let text = decide(&wrong, known(10)).unwrap_err();
    assert!(text.contains("y: float [?, 10] (Softmax over axis 0)"), "{text}");
    assert!(signature(&wrong, known(10), &set("[output]\nscores = \"probabilities\"")).is_ok());
}

#[test]
fn outputs_that_hold_no_scores_are_listed() {
    let map = Output {
        tensor: tensor("map", DataType::Float, &[0, 64, 7, 7]),
        row: Row::None,
        ..output_of("map", 64, Ending::Features)
    };
    let counts = Output { tensor: tensor("counts", DataType::Int64, &[0, 10]), ..scores("counts", 10) };
    let text = decide(&graph([map, counts]), known(10)).unwrap_err();
    assert!(text.contains("map: float [?, 64, 7, 7] (features), counts: int64 [?, 10] (raw scores)"), "{text}");
    assert!(decide(&graph([]), known(10)).is_err());
    // Without labels the file could claim any number.
    assert_eq!(decide(&graph([scores("y", 1_000_000)]), known(None)).unwrap().output.classes, 1_000_000);
    assert!(decide(&graph([scores("y", 1_000_001)]), known(None)).is_err());
}

#[test]
fn the_input_is_a_batch_of_images_that_the_recipe_prepares() {
    let with = |input: Input, toml: &str| {
        let interface = Interface { inputs: vec![input], outputs: vec![scores("y", 10)] };
        signature(&interface, known(10), &set(toml)).map_err(|error| error.to_string())
    };
    let first = Some(ChannelAxis::First);
    let made = with(image(&[8, 0, 224, 0], first), "").unwrap();
    assert_eq!((made.input.shape, made.input.layout), ([8, -1, 224, -1], TensorLayout::Nchw));
    assert_eq!(made.fixed_batch, Some(8));
    assert_eq!(with(image(&[1024, 3, 224, 200], first), "").unwrap().fixed_batch, Some(1024));
    let made = with(image(&[0, 224, 200, 3], Some(ChannelAxis::Last)), "").unwrap();
    assert_eq!((made.input.layout, made.fixed_batch), (TensorLayout::Nhwc, None));
    let open = image(&[0, 0, 0, 0], None);
    assert!(with(open.clone(), "").unwrap_err().contains("set layout = \"nchw\" or \"nhwc\" under [input]"));
    assert_eq!(with(open, "[input]\nlayout = \"nhwc\"").unwrap().input.layout, TensorLayout::Nhwc);
    for (input, expected) in [
        (image(&[0, 3, 224, 224], first), "expected f32, f16 or u8 [N, 3, 224, 200], as its recipe prepares"),
        (image(&[0, 224, 224, 3], Some(ChannelAxis::Last)), "[N, 224, 200, 3]"),
        (image(&[0, 1, 224, 200], first), "grey images"),
        (image(&[0, 4, 224, 200], first), "[N, 3, 224, 200]"),
        (image(&[3, 224, 200], None), "a batch of images"),
        (image(&[1025, 3, 224, 200], first), "at most 1024 images"),
        (
            Input { tensor: tensor("tokens", DataType::Int64, &[0, 3, 224, 200]), channels: first, normalises: false },
            "tokens: int64 [?, 3, 224, 200]",
        ),
    ] {
        let text = with(input, "").unwrap_err();
        assert!(text.contains(expected), "{text}");
    }
    let two = Interface { inputs: vec![image(&[0, 3, 224, 200], first), image(&[0, 1], None)], outputs: vec![] };
    assert!(decide(&two, known(10)).unwrap_err().ends_with("expected one, of images"));
}

#[test]
fn an_output_with_a_fixed_batch_behind_a_free_input_is_not_believed() {
    let mut fixed = scores("y", 10);
    fixed.tensor = tensor("y", DataType::Float, &[1, 10]);
    assert_eq!(decide(&graph([fixed]), known(10)).unwrap().fixed_batch, Some(1));
}
