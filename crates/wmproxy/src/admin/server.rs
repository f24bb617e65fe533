//! The server of the admin API.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::bind::{Bound, Stream};
use super::guard::{Guard, Refusal};
use super::status::Status;
use super::{ApiError, Control, METRICS_PATH, RELOAD_PATH, STATUS_PATH, STOP_PATH, StopRequest, Stopping};
use crate::observe::metrics;

/// A request's body has to arrive within this, once its head is there.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// No request of this API comes near.
const BODY_LIMIT: usize = 64 << 10;

/// Some dashboards and scrapers, each with a connection that it keeps. When all are taken, the oldest one that has not
/// asked anything yet makes room; where all have asked, others wait in the system's queue.
pub(super) const MAX_CONNECTIONS: usize = 64;

/// After this a connection is closed at its next answer, so that one that never reads does not stay for good.
const LIFETIME: Duration = Duration::from_secs(600);

/// How long an answer in flight may take once its connection is to end; a stop waits for it.
const GRACE: Duration = Duration::from_secs(1);

/// The pause after a failed accept: out of descriptors, most likely, which trying at once does not change.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The smallest buffer that hyper allows is 8 KiB; a head that does not fit in twice that is an attack.
const HEAD_BYTES: usize = 16 << 10;

/// What the routes know.
#[derive(Clone)]
struct App {
    control: Arc<dyn Control>,
    guard: Guard,
}

/// A connection whose first request's head is still to come.
struct Silent {
    handle: AbortHandle,
    asked: Arc<AtomicBool>,
}

impl Silent {
    fn is_over(&self) -> bool {
        self.handle.is_finished() || self.asked.load(Ordering::Relaxed)
    }
}

/// The routes for one connection; notes that it has asked.
struct Routes {
    router: TowerToHyperService<Router>,
    asked: Arc<AtomicBool>,
}

impl Service<hyper::Request<Incoming>> for Routes {
    type Response = Response;
    type Error = Infallible;
    type Future = <TowerToHyperService<Router> as Service<hyper::Request<Incoming>>>::Future;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        self.asked.store(true, Ordering::Relaxed);
        self.router.call(request)
    }
}

impl Bound {
    /// Answers until `shutdown` resolves, then lets the answers in flight end, which takes a second at most.
    pub(crate) async fn serve(self, control: Arc<dyn Control>, shutdown: impl Future<Output = ()>) {
        let router = router(App { control, guard: Guard::new(&self.listen) });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.header_timeout).max_buf_size(HEAD_BYTES);
        let (stop, stopped) = watch::channel(());
        let mut conns = JoinSet::new();
        // The oldest first.
        let mut silent: VecDeque<Silent> = VecDeque::new();
        let mut shutdown = pin!(shutdown);
        // One line each time it begins, not one each try.
        let mut failing = false;
        loop {
            silent.retain(|conn| !conn.is_over());
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = conns.join_next() => {}
                accepted = self.listener.accept(), if conns.len() < MAX_CONNECTIONS || !silent.is_empty() => match accepted {
                    Ok(stream) => {
                        failing = false;
                        if conns.len() >= MAX_CONNECTIONS && let Some(oldest) = silent.pop_front() {
                            oldest.handle.abort();
                        }
                        let asked = Arc::new(AtomicBool::new(false));
                        let router = TowerToHyperService::new(router.clone());
                        let routes = Routes { router, asked: asked.clone() };
                        let conn = http.serve_connection(TokioIo::new(stream), routes);
                        let handle = conns.spawn(connection(conn, stopped.clone()));
                        silent.push_back(Silent { handle, asked });
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut failing, true) {
                            tracing::warn!(address = %self.address(), %error, "the admin API can't accept");
                        }
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // Frees the address first: a successor may want it.
        drop(self);
        drop(stop);
        // What is left after that is cut off with the set.
        let _ = timeout(GRACE, async { while conns.join_next().await.is_some() {} }).await;
    }
}

async fn connection(conn: Conn, mut stopped: watch::Receiver<()>) {
    let mut conn = pin!(conn);
    let result = tokio::select! {
        result = conn.as_mut() => result,
        // Nothing is ever sent: it ends with its sender.
        _ = stopped.changed() => finish(conn).await,
        () = sleep(LIFETIME) => finish(conn).await,
    };
    if let Err(error) = result {
        tracing::debug!(error = &error as &dyn std::error::Error, "an admin connection ended early");
    }
}

type Conn = http1::Connection<TokioIo<Box<dyn Stream>>, Routes>;

async fn finish(mut conn: Pin<&mut Conn>) -> hyper::Result<()> {
    conn.as_mut().graceful_shutdown();
    timeout(GRACE, conn).await.unwrap_or(Ok(()))
}

fn router(app: App) -> Router {
    Router::new()
        .route(STATUS_PATH, get(status))
        .route(RELOAD_PATH, post(reload))
        .route(STOP_PATH, post(stop))
        .route(METRICS_PATH, get(scrape))
        .fallback(async || error(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(async || {
            error(StatusCode::METHOD_NOT_ALLOWED, "this method has no meaning here")
        })
        .layer(from_fn_with_state(app.clone(), admit))
        .with_state(app)
}

/// Every request passes here: who may not is turned away, and its body is read within limits.
async fn admit(State(app): State<App>, request: Request, next: Next) -> Result<Response, Infallible> {
    let mut response = match app.guard.check(request.headers(), app.control.token().as_ref()) {
        Err(refusal) => refused(refusal),
        Ok(()) => match read_body(request).await {
            Ok(request) => next.run(request).await,
            Err(response) => response,
        },
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

async fn read_body(request: Request) -> Result<Request, Response> {
    let too_large = || error(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 64 KiB");
    let (parts, body) = request.into_parts();
    if body.size_hint().lower() > BODY_LIMIT as u64 {
        return Err(too_large());
    }
    match timeout(BODY_TIMEOUT, axum::body::to_bytes(body, BODY_LIMIT)).await {
        Ok(Ok(bytes)) => Ok(Request::from_parts(parts, Body::from(bytes))),
        // The other cause is a client that went away, and it does not see the answer.
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(error(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive")),
    }
}

fn refused(refusal: Refusal) -> Response {
    let mut response = error(refusal.status(), refusal.as_str());
    if refusal == Refusal::Token {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn error(status: StatusCode, text: &str) -> Response {
    (status, Json(ApiError { error: text.to_owned() })).into_response()
}

async fn status(State(app): State<App>) -> Json<Status> {
    Json(Status::of(&app.control.snapshot(), SystemTime::now()))
}

async fn scrape(State(app): State<App>) -> Response {
    let text = metrics::text(app.control.snapshot());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn reload(State(app): State<App>) -> Response {
    match app.control.reload().await {
        Ok(Ok(reloaded)) => Json(reloaded).into_response(),
        Ok(Err(failure)) => (StatusCode::UNPROCESSABLE_ENTITY, Json(failure)).into_response(),
        Err(_) => error(StatusCode::SERVICE_UNAVAILABLE, "the process is stopping"),
    }
}

async fn stop(State(app): State<App>, uri: Uri, body: Bytes) -> Response {
    let mut request = StopRequest::default();
    if !body.is_empty() {
        request = match serde_json::from_slice(&body) {
            Ok(request) => request,
            Err(e) => return error(StatusCode::BAD_REQUEST, &format!("the body is no stop request: {e}")),
        };
    }
    for parameter in uri.query().unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
        request.now = match parameter {
            "now" | "now=true" | "now=1" => true,
            "now=false" | "now=0" => false,
            _ => return error(StatusCode::BAD_REQUEST, "the only parameter is now=true"),
        };
    }
    let active = app.control.snapshot().listeners.iter().map(|listener| listener.active()).sum();
    app.control.stop(request.now);
    (StatusCode::ACCEPTED, Json(Stopping { pid: std::process::id(), active })).into_response()
}
