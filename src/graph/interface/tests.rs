use super::*;
use crate::graph::proto::{
    AttributeProto, DimensionProto, GraphProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, TypeValue,
};

/// A node with integer attributes: those of one value are `i`, others `ints`.
fn node(op: &str, inputs: &[&str], output: &str, attributes: &[(&str, &[i64])]) -> NodeProto {
    let attribute = |&(name, values): &(&str, &[i64])| AttributeProto {
        name: Some(name.to_owned()),
        i: if let [value] = values { Some(*value) } else { None },
        ints: if let [_] = values { Vec::new() } else { values.to_vec() },
        ..AttributeProto::default()
    };
    NodeProto {
        op_type: Some(op.to_owned()),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute: attributes.iter().map(attribute).collect(),
        ..NodeProto::default()
    }
}

/// A float tensor; 0 is a free dimension. `None` leaves out the shape.
fn value(name: &str, dims: Option<&[i64]>) -> ValueInfoProto {
    let dim = |&size: &i64| DimensionProto { value: Some(DimensionValue::Value(size)), denotation: None };
    let shape = dims.map(|dims| TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = TensorTypeProto { elem_type: Some(DataType::Float as i32), shape };
    let r#type = TypeProto { value: Some(TypeValue::Tensor(tensor)), denotation: None };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(r#type), ..ValueInfoProto::default() }
}

fn weight(name: &str, dims: &[i64]) -> TensorProto {
    TensorProto { name: Some(name.to_owned()), dims: dims.to_vec(), ..TensorProto::default() }
}

fn model(opset: i64, nodes: Vec<NodeProto>, input: Option<&[i64]>, output: Option<&[i64]>) -> ModelProto {
    let graph = GraphProto {
        node: nodes,
        initializer: vec![weight("w", &[10, 64]), weight("kernel", &[10, 64, 1, 1]), weight("b", &[10])],
        input: vec![value("x", input)],
        output: vec![value("y", output)],
        ..GraphProto::default()
    };
    let standard = OperatorSetIdProto { domain: None, version: Some(opset) };
    ModelProto { graph: Some(graph), opset_import: vec![standard], ..ModelProto::default() }
}

fn ending_of(opset: i64, nodes: Vec<NodeProto>, output: Option<&[i64]>) -> Output {
    interface(&model(opset, nodes, Some(&[0, 3, 8, 8]), output)).outputs.remove(0)
}

fn channels_of(nodes: Vec<NodeProto>, input: Option<&[i64]>) -> Option<ChannelAxis> {
    interface(&model(17, nodes, input, None)).inputs[0].channels
}

/// Features -> scores, as exporters write it.
fn classifier(to: &str) -> Vec<NodeProto> {
    vec![
        node("GlobalAveragePool", &["x"], "pool", &[]),
        node("Flatten", &["pool"], "flat", &[]),
        node("Gemm", &["flat", "w", "b"], to, &[("transB", &[1])]),
    ]
}

#[test]
fn initialisers_among_the_inputs_are_weights() {
    let mut old = model(7, classifier("y"), Some(&[0, 3, 8, 8]), Some(&[0, 10]));
    old.graph.as_mut().unwrap().input.push(value("w", Some(&[10, 64])));
    let inputs = interface(&old).inputs;
    assert_eq!(inputs.iter().map(|input| input.tensor.name.as_str()).collect::<Vec<_>>(), ["x"]);
}

#[test]
fn a_model_without_a_graph_has_no_interface() {
    assert_eq!(interface(&ModelProto::default()), Interface::default());
}

#[test]
fn three_channels_beside_larger_sides_tell_the_layout() {
    assert_eq!(channels_of(vec![], Some(&[0, 3, 224, 224])), Some(ChannelAxis::First));
    assert_eq!(channels_of(vec![], Some(&[1, 224, 224, 3])), Some(ChannelAxis::Last));
    assert_eq!(channels_of(vec![], Some(&[0, 3, 0, 0])), Some(ChannelAxis::First));
    assert_eq!(channels_of(vec![], Some(&[0, 1, 28, 28])), Some(ChannelAxis::First));
    assert_eq!(channels_of(vec![], Some(&[0, 3])), None);
    assert_eq!(channels_of(vec![], None), None);
}

#[test]
fn where_sides_are_free_the_first_operator_with_axes_tells() {
    let scale = || node("Mul", &["x", "b"], "scaled", &[]);
    for input in [None, Some(&[0, 0, 0, 0][..]), Some(&[0, 3, 0, 3])] {
        let transpose = node("Transpose", &["scaled"], "t", &[("perm", &[0, 3, 1, 2])]);
        assert_eq!(channels_of(vec![scale(), transpose], input), Some(ChannelAxis::Last));
        let conv = node("Conv", &["scaled", "kernel"], "c", &[]);
        assert_eq!(channels_of(vec![scale(), conv], input), Some(ChannelAxis::First));
        let mean = node("ReduceMean", &["scaled"], "m", &[("axes", &[1, 2])]);
        assert_eq!(channels_of(vec![scale(), mean], input), Some(ChannelAxis::Last));
        let relu = node("Relu", &["scaled"], "r", &[]);
        assert_eq!(channels_of(vec![scale(), relu], input), None);
    }
}

#[test]
fn arithmetic_with_constants_before_the_first_layer_normalises() {
    let normalises = |nodes: Vec<NodeProto>, dims: &[i64]| {
        let mut model = model(17, nodes, Some(&[0, 3, 8, 8]), None);
        model.graph.as_mut().unwrap().initializer.push(weight("mean", dims));
        interface(&model).inputs[0].normalises
    };
    let conv = |from: &str| node("Conv", &[from, "kernel"], "y", &[]);
    for op in ["Sub", "Div", "Mul", "Add"] {
        for dims in [&[][..], &[1], &[3], &[1, 3, 1, 1], &[3, 1, 1]] {
            let nodes = |inputs: [&str; 2]| {
                vec![node("Shape", &["x"], "s", &[]), node("Cast", &["x"], "c", &[]), node(op, &inputs, "n", &[])]
            };
            assert!(normalises([nodes(["c", "mean"]), vec![conv("n")]].concat(), dims), "{op} {dims:?}");
            assert!(normalises([nodes(["mean", "c"]), vec![conv("n")]].concat(), dims), "{op} {dims:?}");
        }
        // Another picture, or one value a pixel.
        assert!(!normalises(vec![node(op, &["x", "x"], "n", &[]), conv("n")], &[3]));
        assert!(!normalises(vec![node(op, &["x", "mean"], "n", &[]), conv("n")], &[1, 3, 8, 8]));
    }
    assert!(!normalises(vec![conv("x")], &[3]));
    // The bias of a layer, and a batch norm in front.
    assert!(!normalises(vec![node("Conv", &["x", "kernel"], "c", &[]), node("Add", &["c", "mean"], "y", &[])], &[3]));
    let norm = node("BatchNormalization", &["x", "mean", "mean", "mean", "mean"], "n", &[]);
    assert!(!normalises(vec![norm, conv("n")], &[3]));
    let ring = vec![node("Identity", &["y"], "x", &[]), node("Identity", &["x"], "y", &[])];
    assert!(!normalises(ring, &[3]));
}

#[test]
fn an_output_is_a_row_if_only_one_dimension_counts() {
    let row = |dims: Option<&[i64]>| interface(&model(17, vec![], None, dims)).outputs[0].row;
    for dims in [&[0, 10][..], &[0, 10, 1, 1], &[0, 1, 1, 10], &[4, 10], &[10]] {
        assert_eq!(row(Some(dims)), Row::Known(10), "{dims:?}");
    }
    assert_eq!(row(Some(&[0, 1])), Row::Known(1));
    assert_eq!((row(Some(&[0, 0])), row(None)), (Row::Open, Row::Open));
    for dims in [&[0, 64, 7, 7][..], &[0], &[]] {
        assert_ne!(row(Some(dims)), Row::Known(10), "{dims:?}");
    }
    assert_eq!(row(Some(&[0, 64, 7, 7])), Row::None);
}

#[test]
fn the_classifier_tells_the_width_that_the_output_does_not() {
    for output in [None, Some(&[0, 0][..])] {
        let found = ending_of(17, classifier("y"), output);
        assert_eq!((found.ending, found.row), (Ending::Scores, Row::Known(10)));
    }
    let matmul = vec![
        node("Transpose", &["w"], "turned", &[("perm", &[1, 0])]),
        node("MatMul", &["x", "turned"], "product", &[]),
        node("Add", &["b", "product"], "y", &[]),
    ];
    let found = ending_of(17, matmul, None);
    assert_eq!((found.ending, found.row), (Ending::Scores, Row::Known(10)));
    let conv = vec![node("Conv", &["x", "kernel", "b"], "c", &[]), node("Squeeze", &["c"], "y", &[])];
    let found = ending_of(17, conv, None);
    assert_eq!((found.ending, found.row), (Ending::Scores, Row::Known(10)));
}

#[test]
fn endings_are_found_behind_what_only_rearranges() {
    let wrapped = |op: &str| {
        let mut nodes = classifier("logits");
        nodes.push(node(op, &["logits"], "a", &[]));
        nodes.push(node("Cast", &["a"], "b", &[]));
        nodes.push(node("QuantizeLinear", &["b", "scale"], "q", &[]));
        nodes.push(node("DequantizeLinear", &["q", "scale"], "d", &[]));
        nodes.push(node("Identity", &["d"], "y", &[]));
        ending_of(17, nodes, Some(&[0, 10])).ending
    };
    assert_eq!(wrapped("Softmax"), Ending::Softmax);
    assert_eq!(wrapped("LogSoftmax"), Ending::LogSoftmax);
    assert_eq!(wrapped("Sigmoid"), Ending::Sigmoid);
    assert_eq!(wrapped("ArgMax"), Ending::Indices);
    assert_eq!(wrapped("Dropout"), Ending::Scores);
    assert_eq!(wrapped("Relu"), Ending::Features);
    assert_eq!(wrapped("Exp"), Ending::Unknown { op: "Exp".to_owned() });
    let mut log = classifier("logits");
    log.push(node("Softmax", &["logits"], "p", &[]));
    log.push(node("Log", &["p"], "y", &[]));
    assert_eq!(ending_of(17, log, None).ending, Ending::LogSoftmax);
    let foreign = NodeProto { domain: Some("com.example".to_owned()), ..node("Softmax", &["x"], "y", &[]) };
    assert_eq!(ending_of(17, vec![foreign], None).ending, Ending::Unknown { op: "Softmax".to_owned() });
}

#[test]
fn softmax_must_be_over_the_classes() {
    let softmax = |opset, output: &[i64], attributes: &[(&str, &[i64])]| {
        let mut nodes = classifier("logits");
        if output.len() == 4 {
            nodes.push(node("Conv", &["x", "kernel"], "map", &[]));
            nodes.push(node("Softmax", &["map"], "y", attributes));
        } else {
            nodes.push(node("Softmax", &["logits"], "y", attributes));
        }
        ending_of(opset, nodes, Some(output)).ending
    };
    let wrong = |axis| Ending::WrongAxis { op: "Softmax".to_owned(), axis };
    // The default was axis 1, flattened, and is the last one since opset 13.
    for (opset, output, axis, expected) in [
        (17, &[0, 10][..], None, Ending::Softmax),
        (17, &[0, 10], Some(1), Ending::Softmax),
        (17, &[0, 10], Some(-1), Ending::Softmax),
        (17, &[0, 10], Some(0), wrong(0)),
        (17, &[0, 10], Some(-2), wrong(-2)),
        (9, &[0, 10], None, Ending::Softmax),
        (9, &[0, 10], Some(0), wrong(0)),
        (17, &[0, 10, 1, 1], Some(1), Ending::Softmax),
        (17, &[0, 10, 1, 1], Some(-3), Ending::Softmax),
        (17, &[0, 10, 1, 1], None, wrong(-1)),
        (9, &[0, 10, 1, 1], None, Ending::Softmax),
    ] {
        let attributes = axis.map(|axis| vec![axis]);
        let attributes: Vec<(&str, &[i64])> = attributes.iter().map(|axis| ("axis", &axis[..])).collect();
        assert_eq!(softmax(opset, output, &attributes), expected, "opset {opset}, {output:?}, axis {axis:?}");
    }
}

#[test]
fn scores_and_their_softmax_have_one_root_and_pooled_values_are_features() {
    let mut nodes = classifier("logits");
    nodes.push(node("Flatten", &["logits"], "again", &[]));
    nodes.push(node("Softmax", &["again"], "y", &[]));
    let mut model = model(17, nodes, Some(&[0, 3, 8, 8]), Some(&[0, 10]));
    let graph = model.graph.as_mut().unwrap();
    graph.output.push(value("logits", Some(&[0, 10])));
    graph.output.push(value("flat", Some(&[0, 64])));
    let outputs = interface(&model).outputs;
    assert_eq!(outputs[0].root, outputs[1].root);
    assert_eq!((&outputs[1].ending, &outputs[2].ending), (&Ending::Scores, &Ending::Features));
    // A network that scores each place and averages.
    let fully = vec![
        node("Conv", &["x", "kernel"], "map", &[]),
        node("GlobalAveragePool", &["map"], "pool", &[]),
        node("Flatten", &["pool"], "y", &[]),
    ];
    assert_eq!(ending_of(17, fully, None).ending, Ending::Scores);
}

#[test]
fn a_circle_ends_the_walk() {
    let ring = || vec![node("Identity", &["y"], "a", &[]), node("Identity", &["a"], "y", &[])];
    assert_eq!(ending_of(17, ring(), None).ending, Ending::Unknown { op: String::new() });
    let arithmetic = vec![node("Add", &["x", "c"], "c", &[]), node("Mul", &["c", "x"], "x", &[])];
    assert_eq!(channels_of(arithmetic, None), None);
}

/// A walk that costs as many steps as the graph has nodes, from each node again, would take hours here.
#[test]
fn large_graphs_take_no_longer_for_being_knotted() {
    const NODES: usize = 100_000;
    let chain = |op: &str, from: &str, prefix: &str, second: Option<&str>| -> Vec<NodeProto> {
        let name = |at: usize| if at == 0 { from.to_owned() } else { format!("{prefix}{at}") };
        let inputs = |at: usize| [second.map(str::to_owned), Some(name(at))].into_iter().flatten().collect::<Vec<_>>();
        let node = |at| NodeProto { input: inputs(at), ..node(op, &[], &name(at + 1), &[]) };
        (0..NODES).map(node).collect()
    };
    // Sums, each of which adds a constant that lies behind a long chain.
    let mut sums = chain("Identity", "b", "i", None);
    sums.push(node("Conv", &["x", "kernel"], "c", &[]));
    sums.extend(chain("Add", "c", "a", Some(&format!("i{NODES}"))));
    sums.push(node("Identity", &[&format!("a{NODES}")], "y", &[]));
    assert_eq!(ending_of(17, sums, None).row, Row::Open);
    // Many outputs at the end of a long chain.
    let mut outputs = model(17, chain("Identity", "x", "i", None), None, None);
    let graph = outputs.graph.as_mut().unwrap();
    graph.output = (NODES - NODES / 10..NODES).map(|at| value(&format!("i{at}"), None)).collect();
    assert_eq!(interface(&outputs).outputs.len(), NODES / 10);
    // A value that one node reads often, and that another reads as often again.
    let mut fan = vec![node("Add", &vec!["x"; NODES], "s", &[]), node("Foo", &vec!["s"; NODES], "y", &[])];
    fan.extend(chain("Foo", "nothing", "n", None));
    assert_eq!(channels_of(fan, None), None);
    // A value that many nodes read, behind as many names.
    let mut knots: Vec<_> = (0..NODES).map(|_| node("Identity", &["x"], "s", &[])).collect();
    knots.extend((0..NODES).map(|_| node("Foo", &["s"], "y", &[])));
    assert_eq!(channels_of(knots, None), None);
}
