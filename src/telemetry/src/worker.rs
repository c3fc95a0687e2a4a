//! The thread that sends a run's telemetry and answers Prometheus, until the run has ended and a moment longer.

use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;
use std::{io, thread};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::meter::Meter;
use crate::otel::courier::Wires;
use crate::otel::exporter::Exporter;
use crate::prometheus;

/// After a run: for what is still to be sent. A collector that hangs holds up the end of a run so long and no longer.
const GRACE: Duration = Duration::from_secs(5);
/// For the thread to notice.
const MOMENT: Duration = Duration::from_secs(1);

/// What is to be done beside a run.
pub(crate) struct Work {
    pub exporter: Option<Exporter>,
    /// Where Prometheus asks.
    pub endpoint: Option<TcpListener>,
    pub meter: Meter,
    pub resource: Vec<(String, String)>,
}

/// The thread as others hold it.
pub(crate) struct Worker {
    ending: watch::Sender<Option<Instant>>,
    notices: mpsc::Receiver<String>,
    /// Closed once the thread is done.
    done: mpsc::Receiver<()>,
}

impl Worker {
    pub fn start(work: Work) -> io::Result<Self> {
        let (ending, _) = watch::channel(None);
        let (notices_to, notices) = mpsc::channel();
        let (done_to, done) = mpsc::channel();
        let of_thread = ending.clone();
        let run = move || {
            // Closed when the work ends, however it ends.
            let _done = done_to;
            work.run(of_thread, notices_to);
        };
        thread::Builder::new().name("telemetry".into()).spawn(run)?;
        Ok(Worker {
            ending,
            notices,
            done,
        })
    }

    /// What the user should know by now.
    pub fn notice(&self) -> Option<String> {
        self.notices.try_recv().ok()
    }

    /// Lets it send what is left, for a few seconds at most.
    pub fn end(&self) {
        self.ending.send_replace(Some(Instant::now() + GRACE));
        // Closed in time or not: the run's end waits no longer.
        let _ = self.done.recv_timeout(GRACE + MOMENT);
    }
}

impl Work {
    fn run(self, ending: watch::Sender<Option<Instant>>, notices: mpsc::Sender<String>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let notice = format!("telemetry: nothing is sent, no runtime for it ({error})");
                // Nobody need listen.
                let _ = notices.send(notice);
                return;
            }
        };
        runtime.block_on(async {
            if let Some(listener) = self.endpoint {
                let resource = self.resource.clone();
                tokio::spawn(prometheus::serve(listener, self.meter.clone(), resource));
            }
            let mut until = ending.subscribe();
            if let Some(exporter) = self.exporter {
                tokio::spawn(hasten(ending, notices.clone()));
                let wires = Wires {
                    ending: until.clone(),
                    notices,
                };
                exporter.run(&self.resource, self.meter, wires).await;
            }
            // Metrics may be read until then, whoever has given up sending.
            drop(until.wait_for(Option::is_some).await);
        });
        // A name that is still being looked up is not waited for.
        runtime.shutdown_background();
    }
}

/// Who interrupts the program once its run has ended, wants it to wait no longer. The launch has caught these signals and listens no
/// more: they would do nothing.
async fn hasten(ending: watch::Sender<Option<Instant>>, notices: mpsc::Sender<String>) {
    drop(ending.subscribe().wait_for(Option::is_some).await);
    let signals = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // Nobody need listen.
    let _ = notices.send("telemetry: interrupted, what is left is not sent".to_owned());
    ending.send_replace(Some(Instant::now()));
}
