//! The nodes of a model in the order in which they can run, with numbers in place of names and the bodies of local
//! functions in place of their calls. What a node does is left to others.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;

use crate::graph::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};

/// Most that calls of functions may expand to: nodes, their inputs, outputs and attributes. Functions that call functions
/// could otherwise grow without end. An export of ResNet-152 with a function for each module stays below 20,000.
const EXPANDED_MAX: usize = 1_000_000;
/// Functions inside functions. PyTorch's nest as deep as its modules do.
const CALLS_DEEP_MAX: usize = 32;

/// A tensor's number.
pub(super) type ValueId = usize;

/// The attributes that the call of a function passed to its body.
type Scope<'a> = HashMap<&'a str, &'a AttributeProto>;

/// One node with its place in the model.
pub(super) struct Call<'a> {
    pub(super) node: &'a NodeProto,
    scope: Option<Rc<Scope<'a>>>,
    /// `None` for an input that is left out.
    pub(super) inputs: Vec<Option<ValueId>>,
    pub(super) outputs: Vec<Option<ValueId>>,
}

/// A model without names.
#[derive(Default)]
pub(super) struct Flat<'a> {
    /// In an order in which they can run.
    pub(super) calls: Vec<Call<'a>>,
    /// How many tensors there are.
    pub(super) values: usize,
    pub(super) inputs: Vec<(ValueId, &'a ValueInfoProto)>,
    pub(super) constants: Vec<(ValueId, &'a TensorProto)>,
    /// Whether something was left out because it would have grown without end.
    pub(super) is_cut: bool,
}

impl<'a> Call<'a> {
    pub(super) fn op(&self) -> &'a str {
        self.node.op_type.as_deref().unwrap_or_default()
    }

    pub(super) fn domain(&self) -> &'a str {
        self.node.domain.as_deref().unwrap_or_default()
    }

    /// The attribute `name`, be it the node's own or the calling function's.
    fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        let own = self.node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))?;
        resolve(own, self.scope.as_deref())
    }

    pub(super) fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name)?.i
    }

    pub(super) fn float(&self, name: &str) -> Option<f64> {
        self.attribute(name)?.f.map(f64::from)
    }

    pub(super) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    pub(super) fn floats(&self, name: &str) -> Option<&'a [f32]> {
        self.attribute(name).map(|attribute| attribute.floats.as_slice())
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.attribute(name)?.s.as_deref()?).ok()
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&'a TensorProto> {
        self.attribute(name)?.t.as_ref()
    }
}

/// What `attribute` stands for: itself, or what the call of the function gave under that name.
fn resolve<'a>(attribute: &'a AttributeProto, scope: Option<&Scope<'a>>) -> Option<&'a AttributeProto> {
    match attribute.ref_attr_name.as_deref() {
        None | Some("") => Some(attribute),
        Some(name) => scope?.get(name).copied(),
    }
}

/// The names that one body, that of the graph or of a function, has given out so far.
type Names<'a> = HashMap<&'a str, ValueId>;

struct Expansion<'a> {
    functions: HashMap<(&'a str, &'a str), &'a FunctionProto>,
    flat: Flat<'a>,
    budget: usize,
}

impl<'a> Flat<'a> {
    /// Takes names and functions out of `model`. Nodes that wait for each other, which only functions can still hold, are
    /// left out.
    pub(super) fn new(model: &'a ModelProto) -> Self {
        let functions = model.functions.iter().map(|function| {
            ((function.domain.as_deref().unwrap_or_default(), function.name.as_deref().unwrap_or_default()), function)
        });
        let mut expansion = Expansion { functions: functions.collect(), flat: Flat::default(), budget: EXPANDED_MAX };
        if let Some(graph) = &model.graph {
            expansion.graph(graph);
        }
        let mut flat = expansion.flat;
        flat.sort();
        flat
    }

    /// Brings the calls into an order in which they can run; among those that can, the earlier one in the file first.
    fn sort(&mut self) {
        let mut writer = vec![usize::MAX; self.values];
        for (index, call) in self.calls.iter().enumerate() {
            for output in call.outputs.iter().flatten() {
                writer[*output] = index;
            }
        }
        let mut waits = vec![0_usize; self.calls.len()];
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); self.calls.len()];
        for (index, call) in self.calls.iter().enumerate() {
            for input in call.inputs.iter().flatten() {
                if let Some(readers) = readers.get_mut(writer[*input]) {
                    readers.push(index);
                    waits[index] += 1;
                }
            }
        }
        let can_start = waits.iter().enumerate().filter(|(_, waits)| **waits == 0);
        let mut ready: BinaryHeap<Reverse<usize>> = can_start.map(|(index, _)| Reverse(index)).collect();
        let mut calls: Vec<Option<Call<'a>>> = self.calls.drain(..).map(Some).collect();
        while let Some(Reverse(index)) = ready.pop() {
            self.calls.extend(calls[index].take());
            for reader in &readers[index] {
                waits[*reader] -= 1;
                if waits[*reader] == 0 {
                    ready.push(Reverse(*reader));
                }
            }
        }
        self.is_cut |= calls.iter().any(Option::is_some);
    }
}

impl<'a> Expansion<'a> {
    fn graph(&mut self, graph: &'a GraphProto) {
        let mut names = Names::new();
        for tensor in &graph.initializer {
            let id = self.named(&mut names, tensor.name.as_deref().unwrap_or_default());
            self.flat.constants.push((id, tensor));
        }
        let constants = self.flat.values;
        for input in &graph.input {
            let id = self.named(&mut names, input.name.as_deref().unwrap_or_default());
            // Old files list their weights among the inputs.
            if id >= constants {
                self.flat.inputs.push((id, input));
            }
        }
        self.body(&graph.node, &mut names, None, 0);
    }

    fn named(&mut self, names: &mut Names<'a>, name: &'a str) -> ValueId {
        *names.entry(name).or_insert_with(|| {
            self.flat.values += 1;
            self.flat.values - 1
        })
    }

    fn body(&mut self, nodes: &'a [NodeProto], names: &mut Names<'a>, scope: Option<&Rc<Scope<'a>>>, depth: usize) {
        for node in nodes {
            // The graph's own nodes are bounded by the file.
            let cost = 1 + node.input.len() + node.output.len() + node.attribute.len();
            if depth > 0 && !self.spend(cost) {
                return;
            }
            let inputs = node.input.iter().map(|name| (!name.is_empty()).then(|| self.named(names, name))).collect();
            let outputs = node.output.iter().map(|name| (!name.is_empty()).then(|| self.named(names, name))).collect();
            let call = Call { node, scope: scope.cloned(), inputs, outputs };
            match self.functions.get(&(call.domain(), call.op())).copied() {
                Some(function) if depth < CALLS_DEEP_MAX => self.expand(&call, function, depth),
                Some(_) => self.flat.is_cut = true,
                None => self.flat.calls.push(call),
            }
        }
    }

    /// Puts the body of `function` in place of `call`.
    fn expand(&mut self, call: &Call<'a>, function: &'a FunctionProto, depth: usize) {
        if !self.spend(function.attribute_proto.len() + function.input.len() + function.output.len()) {
            return;
        }
        let mut scope = Scope::new();
        for default in &function.attribute_proto {
            scope.insert(default.name.as_deref().unwrap_or_default(), default);
        }
        for given in &call.node.attribute {
            if let Some(value) = resolve(given, call.scope.as_deref()) {
                scope.insert(given.name.as_deref().unwrap_or_default(), value);
            }
        }
        let mut names = Names::new();
        let formal = function.input.iter().zip(&call.inputs).chain(function.output.iter().zip(&call.outputs));
        for (name, actual) in formal {
            if let Some(actual) = actual {
                names.insert(name, *actual);
            }
        }
        self.body(&function.node, &mut names, Some(&Rc::new(scope)), depth + 1);
    }

    /// Takes `cost` from the budget, or says that it is spent.
    fn spend(&mut self, cost: usize) -> bool {
        self.flat.is_cut |= cost > self.budget;
        self.budget = self.budget.saturating_sub(cost);
        !self.flat.is_cut
    }
}
