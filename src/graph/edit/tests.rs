use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::graph::interface;
use crate::graph::proto::{OperatorSetIdProto, StringStringEntryProto, TensorShapeProto, TensorTypeProto, TypeProto};

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&size: &i64| DimensionProto { value: Some(DimensionValue::Value(size)), denotation: None };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = TensorTypeProto { elem_type: Some(DataType::Float as i32), shape: Some(shape) };
    let r#type = TypeProto { value: Some(TypeValue::Tensor(tensor)), denotation: None };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(r#type), ..ValueInfoProto::default() }
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(op.to_owned()),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

fn with(mut node: NodeProto, name: &str, values: &[i64]) -> NodeProto {
    node.attribute.push(AttributeProto {
        name: Some(name.to_owned()),
        i: values.first().copied(),
        ints: values.to_vec(),
        ..AttributeProto::default()
    });
    node
}

/// An i64 list, stored raw as exporters do.
fn list(name: &str, values: &[i64]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto {
        name: Some(name.to_owned()),
        dims: vec![i64::try_from(values.len()).unwrap()],
        data_type: Some(DataType::Int64 as i32),
        raw_data: Some(Bytes::from(raw)),
        ..TensorProto::default()
    }
}

fn model(batch: i64, nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> ModelProto {
    let graph = GraphProto {
        node: nodes,
        initializer: constants,
        input: vec![value("x", &[batch, 3, 4, 4])],
        output: vec![value("y", &[batch, 3])],
        value_info: vec![value("a", &[batch, 3, 1, 1])],
        ..GraphProto::default()
    };
    let standard = OperatorSetIdProto { domain: None, version: Some(17) };
    ModelProto { graph: Some(graph), opset_import: vec![standard], ..ModelProto::default() }
}

/// What the first Reshape is rewritten to, given its target.
fn target(batch: i64, target: &[i64]) -> Result<Vec<i64>, String> {
    let nodes = vec![node("GlobalAveragePool", &["x"], "a"), node("Reshape", &["a", "target"], "y")];
    let freed =
        free_batch(&model(batch, nodes, vec![list("target", target)]), "x").map_err(|error| error.to_string())?;
    let graph = freed.graph.clone().unwrap();
    let reshape = graph.node.iter().find(|node| node.op_type() == "Reshape").unwrap();
    Ok(Wiring::new(&freed, &graph).ints(&reshape.input[1]).unwrap())
}

fn refusal(nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> String {
    match free_batch(&model(1, nodes, constants), "x") {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it was made free"),
    }
}

#[test]
fn declared_shapes_lose_their_batch_and_nothing_else() {
    let model = model(1, vec![node("GlobalAveragePool", &["x"], "a"), node("Flatten", &["a"], "y")], vec![]);
    let graph = free_batch(&model, "x").unwrap().graph.unwrap();
    for (value, rest) in [(&graph.input[0], &[3, 4, 4][..]), (&graph.output[0], &[3])] {
        let dims = &wiring::tensor_type(value).unwrap().shape.as_ref().unwrap().dim;
        assert_eq!(dims[0].value, Some(DimensionValue::Param("N".to_owned())));
        let rest: Vec<_> = rest.iter().map(|&size| Some(DimensionValue::Value(size))).collect();
        assert_eq!(dims[1..].iter().map(|dim| dim.value.clone()).collect::<Vec<_>>(), rest);
    }
    assert!(graph.value_info.is_empty());
    assert_eq!(graph.node, model.graph.unwrap().node);
}

#[test]
fn the_batch_in_a_reshape_becomes_free() {
    assert_eq!(target(1, &[1, -1]), Ok(vec![0, -1]));
    assert_eq!(target(1, &[1, 3]), Ok(vec![-1, 3]));
    assert_eq!(target(8, &[8, 3]), Ok(vec![-1, 3]));
    assert_eq!(target(8, &[8, -1]), Ok(vec![0, -1]));
    // Free as it is.
    assert_eq!(target(1, &[-1, 3]), Ok(vec![-1, 3]));
    assert_eq!(target(8, &[0, -1]), Ok(vec![0, -1]));
    for (batch, dims) in [(1, &[3][..]), (1, &[-1]), (1, &[3, 1]), (8, &[1, 24]), (1, &[])] {
        assert!(target(batch, dims).unwrap_err().ends_with("without a place for the batch"), "{dims:?}");
    }
}

#[test]
fn a_target_that_other_nodes_share_is_not_changed_under_them() {
    let nodes = vec![
        node("Reshape", &["weight", "target"], "w"),
        node("Reshape", &["x", "target"], "a"),
        node("Add", &["a", "w"], "y"),
    ];
    let freed = free_batch(&model(1, nodes, vec![list("target", &[1, -1])]), "x").unwrap();
    let graph = freed.graph.as_ref().unwrap();
    let wiring = Wiring::new(&freed, graph);
    assert_eq!(wiring.ints("target"), Some(vec![1, -1]));
    let ops: Vec<_> = graph.node.iter().map(NodeProto::op_type).collect();
    assert_eq!(ops, ["Reshape", "Constant", "Reshape", "Add"]);
    assert_eq!((graph.node[0].input[1].as_str(), wiring.ints(&graph.node[2].input[1])), ("target", Some(vec![0, -1])));
}

#[test]
fn a_target_that_nothing_reads_any_more_is_removed() {
    let mut constant = node("Constant", &[], "inner");
    constant.attribute.push(AttributeProto {
        name: Some("value".to_owned()),
        t: Some(list("", &[1, -1])),
        ..AttributeProto::default()
    });
    let nodes = vec![constant, node("Reshape", &["x", "inner"], "a"), node("Reshape", &["a", "target"], "y")];
    let mut old = model(1, nodes, vec![list("target", &[1, 48])]);
    old.graph.as_mut().unwrap().input.push(value("target", &[2]));
    let graph = free_batch(&old, "x").unwrap().graph.unwrap();
    assert!(graph.initializer.is_empty());
    assert_eq!(graph.input.len(), 1);
    let ops: Vec<_> = graph.node.iter().map(NodeProto::op_type).collect();
    assert_eq!(ops, ["Constant", "Reshape", "Constant", "Reshape"]);
}

#[test]
fn external_data_are_read_where_they_are_said_to_be() {
    let outside = |name: &str, location: &str| {
        let entry = |key: &str, value: &str| StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value.to_owned()),
        };
        let external_data = vec![entry("location", location), entry("offset", "a.data")];
        TensorProto { external_data, ..list(name, &[]) }
    };
    let mut constant = node("Constant", &[], "c");
    constant.attribute.push(AttributeProto { t: Some(outside("", "a.data")), ..AttributeProto::default() });
    let mut model = model(1, vec![constant], vec![outside("a", "a.data"), outside("b", "b.data")]);
    relocate(&mut model, |location| (location == "a.data").then(|| "blob".to_owned()));
    let graph = model.graph.unwrap();
    let values = |tensor: &TensorProto| tensor.external_data.iter().map(|e| e.value().to_owned()).collect::<Vec<_>>();
    assert_eq!(values(graph.node[0].attribute[0].t.as_ref().unwrap()), ["blob", "a.data"]);
    assert_eq!(values(&graph.initializer[0]), ["blob", "a.data"]);
    assert_eq!(values(&graph.initializer[1]), ["b.data", "a.data"]);
}

#[test]
fn before_opset_5_the_target_is_an_attribute() {
    let nodes = vec![with(node("Reshape", &["x"], "y"), "shape", &[1, 48])];
    let graph = free_batch(&model(1, nodes, vec![]), "x").unwrap().graph.unwrap();
    assert_eq!(attribute(&graph.node[0], "shape").unwrap().ints, [-1, 48]);
}

#[test]
fn nodes_that_have_the_batch_built_in_are_named() {
    let axes = |values: &[i64]| vec![list("axes", values)];
    for (node, constants, expected) in [
        (node("Squeeze", &["x"], "y"), vec![], "Squeeze y drops every dimension of size 1"),
        (node("Squeeze", &["x", "axes"], "y"), axes(&[0]), "drops the batch dimension"),
        (with(node("Unsqueeze", &["x"], "y"), "axes", &[0]), vec![], "before the batch"),
        (with(node("Transpose", &["x"], "y"), "perm", &[1, 0, 2, 3]), vec![], "moves the batch"),
        (node("Transpose", &["x"], "y"), vec![], "moves the batch"),
        (with(node("Flatten", &["x"], "y"), "axis", &[0]), vec![], "joins the images"),
        (with(node("Softmax", &["x"], "y"), "axis", &[0]), vec![], "across the images"),
        (node("ArgMax", &["x"], "y"), vec![], "across the images"),
        (with(node("Concat", &["x", "x"], "y"), "axis", &[0]), vec![], "across the images"),
        (with(node("Concat", &["x", "axes"], "y"), "axis", &[1]), axes(&[1]), "a constant of a fixed batch"),
        (with(node("Slice", &["x"], "y"), "axes", &[0]), vec![], "cuts along the batch"),
        (node("Expand", &["x", "axes"], "y"), axes(&[4, 3, 4, 4]), "repeats up to a fixed batch"),
        (node("Resize", &["x", "", "", "axes"], "y"), axes(&[1, 3, 8, 8]), "resizes to fixed sizes"),
        (with(node("BatchNormalization", &["x"], "y"), "training_mode", &[1]), vec![], "normalises over the images"),
        (node("ReduceMean", &["x"], "y"), vec![], "reduces over the images"),
        (node("ReduceMean", &["x", "axes"], "y"), axes(&[0, 2]), "reduces over the images"),
    ] {
        let text = refusal(vec![node.clone()], constants);
        assert!(text.contains(expected), "{text}");
        // The same node beside the images' way is nobody's concern.
        let aside =
            NodeProto { input: vec!["weight".to_owned(); node.input.len()], output: vec!["w".to_owned()], ..node };
        assert!(free_batch(&model(1, vec![aside, self::node("Flatten", &["x"], "y")], vec![]), "x").is_ok());
    }
    let mut branch = node("If", &["x"], "y");
    branch.attribute.push(AttributeProto { g: Some(GraphProto::default()), ..AttributeProto::default() });
    assert!(refusal(vec![branch], vec![]).contains("a graph of its own"));
}

#[test]
fn what_is_computed_from_a_shape_follows_the_batch_by_itself() {
    let nodes = vec![
        node("Shape", &["x"], "shape"),
        with(node("Gather", &["shape", "zero"], "batch"), "axis", &[0]),
        with(node("Concat", &["batch", "rest"], "target"), "axis", &[0]),
        node("Reshape", &["x", "target"], "y"),
    ];
    let made = free_batch(&model(1, nodes.clone(), vec![list("zero", &[0]), list("rest", &[-1])]), "x").unwrap();
    assert_eq!(made.graph.unwrap().node, nodes);
}

#[test]
fn what_needs_no_freeing_or_cannot_be_found_is_said() {
    let nodes = || vec![node("Flatten", &["x"], "y")];
    assert_eq!(free_batch(&model(0, nodes(), vec![]), "x"), Err(NotFree::Free));
    assert!(matches!(free_batch(&model(1, nodes(), vec![]), "z"), Err(NotFree::Input { .. })));
    assert!(matches!(free_batch(&ModelProto::default(), "x"), Err(NotFree::Input { .. })));
    // A node that contradicts the free input.
    let target = node("Reshape", &["x", "target"], "y");
    let traced = free_batch(&model(0, vec![target], vec![list("target", &[1, -1])]), "x").unwrap().graph.unwrap();
    assert_eq!(traced.node.len(), 2);
    assert_eq!(first_dim(&traced.input[0]).unwrap().value, Some(DimensionValue::Param("N".to_owned())));
    // An output that contradicts the free input is freed, and shares its symbol.
    let mut half = model(1, nodes(), vec![]);
    set_first_dim(&mut half.graph.as_mut().unwrap().input[0], "batch");
    let graph = free_batch(&half, "x").unwrap().graph.unwrap();
    assert_eq!(first_dim(&graph.output[0]).unwrap().value, Some(DimensionValue::Param("batch".to_owned())));
}

#[test]
fn the_new_symbol_is_nobody_elses() {
    let mut model = model(1, vec![node("Flatten", &["x"], "y")], vec![]);
    let graph = model.graph.as_mut().unwrap();
    let mut other = value("z", &[5]);
    set_first_dim(&mut other, "N");
    graph.output.push(other);
    let graph = free_batch(&model, "x").unwrap().graph.unwrap();
    assert_eq!(first_dim(&graph.input[0]).unwrap().value, Some(DimensionValue::Param("N_".to_owned())));
    assert_eq!(first_dim(&graph.output[1]).unwrap().value, Some(DimensionValue::Param("N".to_owned())));
}

/// Nodes that fit nowhere, over a handful of names so that they meet, form circles and read their own output.
fn any_model() -> impl Strategy<Value = ModelProto> {
    let op = prop::sample::select(vec![
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Flatten",
        "Softmax",
        "ArgMax",
        "Concat",
        "Slice",
        "Expand",
        "Resize",
        "ReduceMean",
        "Constant",
        "Shape",
        "Gemm",
        "Conv",
        "Log",
        "Identity",
        "Add",
        "Div",
        "Relu",
        "",
        "If",
    ]);
    let name = || prop::sample::select(vec!["x", "y", "a", "b", "c", "k", ""]).prop_map(str::to_owned);
    let attribute = (
        prop::sample::select(vec![
            "axis",
            "axes",
            "perm",
            "shape",
            "value",
            "value_ints",
            "transB",
            "allowzero",
            "keepdims",
        ]),
        prop::option::of(any::<i64>()),
        prop::collection::vec(-2i64..5, 0..4),
    );
    let node =
        (op, prop::collection::vec(name(), 0..4), prop::collection::vec(name(), 0..3), prop::option::of(attribute))
            .prop_map(|(op, input, output, attribute)| {
                let attribute = attribute.map(|(name, i, ints)| AttributeProto {
                    name: Some(name.to_owned()),
                    i,
                    t: (name == "value").then(|| list("", &ints)),
                    ints,
                    ..AttributeProto::default()
                });
                let attribute = attribute.into_iter().collect();
                NodeProto { op_type: Some(op.to_owned()), input, output, attribute, ..NodeProto::default() }
            });
    let dims = || prop::collection::vec(prop_oneof![-1i64..5, any::<i64>()], 0..5);
    (prop::collection::vec(node, 0..8), dims(), dims(), dims(), 0i64..20).prop_map(
        |(nodes, input, output, constant, opset)| {
            let graph = GraphProto {
                node: nodes,
                initializer: vec![
                    list("c", &constant),
                    TensorProto { name: Some("k".to_owned()), dims: constant, ..TensorProto::default() },
                ],
                input: vec![value("x", &input), value("c", &[])],
                output: vec![value("y", &output), value("a", &[]), value("x", &input)],
                ..GraphProto::default()
            };
            let standard = OperatorSetIdProto { domain: None, version: Some(opset) };
            ModelProto { graph: Some(graph), opset_import: vec![standard], ..ModelProto::default() }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_graph_makes_the_reader_or_the_editor_stumble(model in any_model()) {
        let seen = interface(&model);
        prop_assert_eq!(seen.inputs.len(), 1);
        prop_assert_eq!(seen.outputs.len(), 3);
        if let Ok(freed) = free_batch(&model, "x") {
            let (before, after) = (model.graph.unwrap(), freed.graph.clone().unwrap());
            let free = interface(&freed).inputs.remove(0).tensor.dims.unwrap();
            prop_assert!(matches!(free[0], interface::Dim::Free(_)));
            // Only constants come and go, and only targets of Reshape change.
            let kept = |nodes: Vec<NodeProto>| {
                nodes.into_iter().filter(|node| node.op_type() != "Constant").collect::<Vec<_>>()
            };
            let (before, after) = (kept(before.node), kept(after.node));
            prop_assert_eq!(before.len(), after.len());
            for (old, new) in before.iter().zip(&after) {
                prop_assert!(old == new || new.op_type() == "Reshape");
            }
        }
    }
}
