//! The crates are the layers, and this keeps them apart: what each may depend on, read from Cargo itself.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// No I/O, no ORM, no HTTP, no serde: whoever adds to this list must be able to say why the rules need it.
const DOMAIN_MAY_USE: [&str; 10] = [
    "async-trait",
    "base64",
    "chrono",
    "futures-util",
    "garde",
    "hmac",
    // Optional, with the feature `testing`.
    "mockall",
    "sha2",
    "thiserror",
    "unicode-normalization",
];

/// The crates below every face. All others of the workspace are faces.
const BELOW_THE_FACES: [&str; 3] = ["mundap-domain", "mundap-infra", "mundap-migration"];

struct Package {
    name: String,
    dependencies: Vec<Value>,
}

impl Package {
    /// What it depends on; `kinds` are `normal`, `build` and `dev`.
    fn uses(&self, kinds: &[&str]) -> BTreeSet<&str> {
        let of_kind = |dependency: &&Value| kinds.contains(&dependency["kind"].as_str().unwrap_or("normal"));
        self.dependencies.iter().filter(of_kind).filter_map(|dependency| dependency["name"].as_str()).collect()
    }
}

fn workspace() -> Vec<Package> {
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .expect("cargo runs");
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let metadata: Value = serde_json::from_slice(&cargo.stdout).expect("cargo writes JSON");
    let package = |package: &Value| Package {
        name: package["name"].as_str().expect("a name").to_owned(),
        dependencies: package["dependencies"].as_array().expect("a list").clone(),
    };
    metadata["packages"].as_array().expect("a list").iter().map(package).collect()
}

fn of<'a>(workspace: &'a [Package], name: &str) -> &'a Package {
    workspace.iter().find(|package| package.name == name).expect("a member of the workspace")
}

#[test]
fn the_domain_depends_on_this_short_list_and_nothing_else() {
    let workspace = workspace();
    let domain = of(&workspace, "mundap-domain");
    assert_eq!(domain.uses(&["normal"]), BTreeSet::from(DOMAIN_MAY_USE));
    assert_eq!(domain.uses(&["build"]), BTreeSet::new());
    for dependency in &domain.dependencies {
        let optional = dependency["kind"].is_null() && dependency["name"] == "mockall";
        assert_eq!(dependency["optional"], optional, "{}", dependency["name"]);
    }
}

#[test]
fn the_domain_depends_on_no_other_crate_of_the_workspace() {
    let workspace = workspace();
    let members: BTreeSet<&str> = workspace.iter().map(|package| package.name.as_str()).collect();
    let used: BTreeSet<&str> = of(&workspace, "mundap-domain").uses(&["normal", "build", "dev"]);
    // Its own tests turn its own feature on.
    assert_eq!(used.intersection(&members).copied().collect::<Vec<_>>(), ["mundap-domain"]);
}

#[test]
fn no_crate_below_the_faces_depends_on_one() {
    let workspace = workspace();
    let members: BTreeSet<&str> = workspace.iter().map(|package| package.name.as_str()).collect();
    let faces: BTreeSet<&str> = members.difference(&BTreeSet::from(BELOW_THE_FACES)).copied().collect();
    assert!(faces.contains("mundap-api"), "{faces:?}");
    for name in BELOW_THE_FACES {
        let used = of(&workspace, name).uses(&["normal", "build", "dev"]);
        assert_eq!(used.intersection(&faces).count(), 0, "{name} uses {used:?}");
    }
}
