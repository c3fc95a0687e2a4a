//! Holds the workspace to its walls: which room may depend on which, and who may name libtorch or tokio.
//!
//! The rule, with its reasons, stands in `docs/decisions/0006-walls-between-rooms.md`; the tables below are its one other copy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use cargo_metadata::{Metadata, MetadataCommand};

const RULE: &str =
    "docs/decisions/0006-walls-between-rooms.md and the tables of tests/tests/walls.rs";

/// Rooms that depend on no other room and on neither libtorch nor tokio; any room may use their plain types.
const LEAVES: &[&str] = &["checkpoint", "data", "event", "metrics", "recipe"];

/// What each room may depend on besides the leaves.
const ARROWS: &[(&str, &[&str])] = &[
    ("checkpoint", &[]),
    ("cli", &["cluster", "launcher", "plan", "telemetry"]),
    ("cluster", &["plan"]),
    ("collective", &[]),
    ("data", &[]),
    ("event", &[]),
    ("launcher", &["plan"]),
    ("metrics", &[]),
    ("nn", &[]),
    ("plan", &[]),
    ("rank", &["plan", "stage", "train"]),
    ("recipe", &[]),
    ("stage", &["nn", "train"]),
    ("telemetry", &[]),
    ("train", &["collective", "nn"]),
];

/// Tests see everything, and nothing sees them.
const TESTS: &str = "tests";

/// Who may name these crates of the world outside.
const GUARDED: &[(&str, &[&str])] = &[
    ("tch", &["collective", "nn", "rank", "stage", "train"]),
    ("tokio", &["cli", "cluster", "launcher", "telemetry"]),
    ("torch-sys", &["collective", "nn", "rank", "stage", "train"]),
];

/// Room -> the names it depends on (a room's name or a crate's), of every kind: normal, build and dev.
type Graph = BTreeMap<String, BTreeSet<String>>;

fn metadata() -> Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo metadata")
}

/// The workspace as Cargo sees it. A room is called after its folder.
fn workspace_graph() -> Graph {
    let metadata = metadata();
    let rooms: BTreeMap<&str, &str> = metadata
        .packages
        .iter()
        .map(|package| {
            let folder = package.manifest_path.parent().unwrap();
            (package.name.as_str(), folder.file_name().unwrap())
        })
        .collect();
    metadata
        .packages
        .iter()
        .map(|package| {
            let names = package.dependencies.iter().map(|dependency| {
                let name = dependency.name.as_str();
                (*rooms.get(name).unwrap_or(&name)).to_owned()
            });
            (rooms[package.name.as_str()].to_owned(), names.collect())
        })
        .collect()
}

fn entry<'t>(table: &[(&str, &'t [&'t str])], name: &str) -> Option<&'t [&'t str]> {
    table
        .iter()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| *value)
}

/// Every arrow that the rule does not allow, one sentence each.
fn forbidden_arrows(graph: &Graph) -> Vec<String> {
    let mut faults = Vec::new();
    for (room, names) in graph {
        let allowed = entry(ARROWS, room);
        if allowed.is_none() && room != TESTS {
            faults.push(format!("{room} is a new room: give it a line in {RULE}"));
        }
        for name in names {
            if let Some(who) = entry(GUARDED, name)
                && !who.contains(&room.as_str())
            {
                faults.push(format!(
                    "{room} -> {name}: only {} may name {name} ({RULE})",
                    who.join(", ")
                ));
            }
            if !graph.contains_key(name) {
                continue;
            }
            let leaf = LEAVES.contains(&name.as_str());
            if LEAVES.contains(&room.as_str()) {
                faults.push(format!(
                    "{room} -> {name}: {room} is a leaf and depends on no room ({RULE})"
                ));
            } else if name == TESTS {
                faults.push(format!(
                    "{room} -> {name}: nothing depends on the tests ({RULE})"
                ));
            } else if let Some(allowed) = allowed
                && !leaf
                && !allowed.contains(&name.as_str())
            {
                faults.push(format!(
                    "{room} -> {name}: {room} may depend on the leaves ({}) and on: {} ({RULE})",
                    LEAVES.join(", "),
                    if allowed.is_empty() {
                        "nothing else".to_owned()
                    } else {
                        allowed.join(", ")
                    }
                ));
            }
        }
    }
    faults
}

/// A cycle of rooms, as `a -> b -> a`. Cargo itself lets one through where an arrow of it is a dev-dependency.
fn cycle(graph: &Graph) -> Option<String> {
    fn walk<'g>(
        graph: &'g Graph,
        path: &mut Vec<&'g str>,
        done: &mut BTreeSet<&'g str>,
        room: &'g str,
    ) -> Option<String> {
        if let Some(start) = path.iter().position(|seen| *seen == room) {
            return Some([&path[start..], &[room]].concat().join(" -> "));
        }
        if !done.insert(room) {
            return None;
        }
        path.push(room);
        let found = graph
            .get(room)
            .into_iter()
            .flatten()
            .find_map(|next| walk(graph, path, done, next));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    graph
        .keys()
        .find_map(|room| walk(graph, &mut Vec::new(), &mut done, room))
}

/// A binary of the profile that this test was built with: target/<profile>/deps/walls-* -> target/<profile>/<name>.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join(name);
    assert!(
        path.exists(),
        "{} is not there: run `make build` first",
        path.display()
    );
    path
}

/// What `ldd` says of a binary in an empty environment, so that only the binary's own search path counts.
fn ldd(name: &str) -> String {
    let output = Command::new("ldd")
        .arg(binary(name))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .output()
        .expect("ldd is part of every Linux with glibc");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "ldd {name}: {text}");
    text
}

fn graph(rooms: &[(&str, &[&str])]) -> Graph {
    rooms
        .iter()
        .map(|(room, names)| {
            let names = names.iter().map(|name| (*name).to_owned());
            ((*room).to_owned(), names.collect())
        })
        .collect()
}

#[test]
fn the_workspace_keeps_to_the_arrows() {
    let workspace = workspace_graph();
    for (room, _) in ARROWS {
        assert!(
            workspace.contains_key(*room),
            "{room} is gone: take it out of {RULE}"
        );
    }
    let faults = forbidden_arrows(&workspace);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_workspace_has_no_cycle() {
    assert_eq!(
        cycle(&workspace_graph()),
        None,
        "a cycle of rooms, dev-dependencies included ({RULE})"
    );
}

/// The launcher runs on login nodes and starts in milliseconds: no crate on its way may bring libtorch in.
#[test]
fn the_launcher_links_no_libtorch() {
    let libraries = ldd("spinectl");
    for library in ["libtorch", "libc10"] {
        assert!(
            !libraries.contains(library),
            "spinectl links {library}, and only spinectl-rank may ({RULE}):\n{libraries}"
        );
    }
}

/// The rank finds libtorch by its own rpath, whatever the environment that srun, torchrun or a pod gives it.
#[test]
fn the_rank_finds_libtorch_in_an_empty_environment() {
    let libraries = ldd("spinectl-rank");
    assert!(
        libraries.contains("libtorch_cpu.so => /"),
        "spinectl-rank does not find libtorch_cpu.so by its rpath (src/rank/build.rs):\n{libraries}"
    );
    assert!(!libraries.contains("not found"), "{libraries}");
}

#[test]
fn a_forbidden_arrow_is_named_with_its_rule() {
    let faults = forbidden_arrows(&graph(&[
        ("data", &["event"]),
        ("event", &[]),
        ("launcher", &["plan", "tch"]),
        ("plan", &["launcher", "event", "serde"]),
        ("telemetry", &["tests"]),
        ("tests", &["launcher", "plan", "tokio"]),
        ("walls", &[]),
    ]));
    let starts = [
        "data -> event: data is a leaf",
        "launcher -> tch: only collective, nn, rank, stage, train may name tch",
        "plan -> launcher: plan may depend on the leaves",
        "telemetry -> tests: nothing depends on the tests",
        "tests -> tokio: only cli, cluster, launcher, telemetry may name tokio",
        "walls is a new room",
    ];
    assert_eq!(faults.len(), starts.len(), "{faults:#?}");
    for (fault, start) in faults.iter().zip(starts) {
        assert!(fault.starts_with(start), "{fault:?} should say {start:?}");
        assert!(fault.contains(RULE), "{fault:?}");
    }
}

#[test]
fn a_cycle_is_found_and_a_diamond_is_none() {
    let ring = graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]);
    assert_eq!(cycle(&ring).as_deref(), Some("b -> c -> b"));
    let diamond = graph(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"]), ("d", &[])]);
    assert_eq!(cycle(&diamond), None);
}
