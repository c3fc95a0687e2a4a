//! Launches that are observed, and collectors beside them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fake_run::command;
use crate::otlp::Receiver;

/// Four updates in two epochs, a warning that names a file of the data, a checkpoint; then it waits where there is `wait`.
pub const TRAINS: &str = r#"
here=${0%/*}
case $job in stage1a*)
    say '"event":"heartbeat","phase":"start_up","step":0,"sequence":0'
    if [ "$RANK" = 0 ]; then
        for step in 1 2 3 4; do
            sleep 0.02
            say "\"event\":\"step\",\"step\":$step,\"total_steps\":4,\"epoch\":$(((step - 1) / 2)),\"loss\":0.5,
                \"learning_rate\":0.1,\"gradient_norm\":1.0,\"samples\":8,\"images\":8,\"seconds\":0.01,
                \"phases\":{\"data_wait\":0.002,\"forward\":0.004}"
        done
        say '"event":"warning","message":"study 1.2.3 is odd, see ./scans/DOE JOHN/1.dcm"'
        say '"event":"checkpoint_written","step":4,"bytes":100,"seconds":0.001'
    fi
    touch "$here/waits-$RANK"
    while [ -e "$here/wait" ]; do sleep 0.02; done ;;
esac
"#;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn receiver(protocol: &str, mode: &str) -> Receiver {
    Receiver::start(&root(), protocol, mode)
}

/// `protocol`: as the variable has it.
pub fn launch(folder: &Path, port: u16, protocol: &str, more: &[(&str, &str)]) -> Command {
    let mut command = command(folder, &["launch", "--ranks", "2", "-q"]);
    let endpoint = format!("http://127.0.0.1:{port}");
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "key=a%20secret")
        .env("OTEL_TRACES_SAMPLER", "always_on")
        .envs(more.iter().copied());
    command
}
