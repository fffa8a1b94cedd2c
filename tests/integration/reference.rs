//! Against Pillow and ONNX Runtime in Python, over real CIFAR-10 test images.
//!
//! The images may not be committed, so this runs where they lie beside the checkout (`../shared/images/cifar10-test`,
//! or `RESIDUAL_CIFAR10_TEST`), and says so where they do not. The reference answers were made by
//! `tests/golden/reference_classes.py` and are committed.

use std::path::PathBuf;

use futures_util::{StreamExt as _, stream};

use crate::support::{TestServer, root};

#[tokio::test(flavor = "multi_thread")]
async fn top_1_agrees_with_the_python_reference_and_the_model_card() {
    let folder = std::env::var_os("RESIDUAL_CIFAR10_TEST")
        .map_or_else(|| root().join("../shared/images/cifar10-test"), PathBuf::from);
    if !folder.is_dir() {
        eprintln!("skipped: no images in {}; set RESIDUAL_CIFAR10_TEST", folder.display());
        return;
    }
    let table = std::fs::read_to_string(root().join("tests/golden/reference_classes.tsv")).unwrap();
    let rows: Vec<(&str, &str)> = table.lines().filter_map(|line| line.split_once('\t')).collect();
    assert_eq!(rows.len(), 1000);
    let server = TestServer::start(&[]).await;
    let labels: Vec<String> = stream::iter(&rows)
        .map(|(file, _)| {
            let image = std::fs::read(folder.join(file)).unwrap();
            let server = &server;
            async move { server.classify(image).await.label().to_owned() }
        })
        .buffered(16)
        .collect()
        .await;
    let differ: Vec<_> = rows.iter().zip(&labels).filter(|((_, expected), label)| expected != label).collect();
    assert!(differ.len() <= 1, "{} of 1000 differ from the reference: {differ:?}", differ.len());
    let right = rows.iter().zip(&labels).filter(|((file, _), label)| file.starts_with(&format!("{label}/"))).count();
    // The card says 88.5 % on these images. One image more or less is the agreement above.
    assert!((884..=886).contains(&right), "{right} of 1000 right, the model card says 885");
}
