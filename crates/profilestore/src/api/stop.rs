//! The signal that tells a program to stop.

use std::io;

/// Waits for the signal to stop: SIGTERM, or SIGINT (Ctrl-C). For programs that do their own
/// waiting, for example to close their connections before [`crate::GameServer::shutdown`]; others
/// have [`crate::GameServer::shutdown_on_signal`].
///
/// Signals are listened to as soon as this is called: one that comes before the future is polled is
/// not lost. From then on, and for as long as the process runs, they do not end the process by
/// themselves. Every call of this hears the signals that come after it. (On Windows it is Ctrl-C
/// alone, from the first poll on.)
///
/// Fails when the signals cannot be listened to.
///
/// # Panics
///
/// Outside of a Tokio runtime.
///
/// ```no_run
/// # async fn serve(_: &profilestore::GameServer) -> std::io::Result<()> { Ok(()) }
/// # async fn run(server: profilestore::GameServer) -> std::io::Result<()> {
/// let stop = profilestore::stop_signal();
/// tokio::select! {
///     stopped = stop => stopped?,
///     served = serve(&server) => served?,
/// }
/// assert!(server.shutdown().await.is_complete());
/// # Ok(())
/// # }
/// ```
pub fn stop_signal() -> impl Future<Output = io::Result<()>> + Send + 'static {
    let signal = listen();
    async move {
        signal?.await;
        Ok(())
    }
}

#[cfg(unix)]
fn listen() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn listen() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
