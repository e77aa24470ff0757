//! The operators' port: is it alive, is it ready, what did it count, what does it log.

use std::sync::OnceLock;
use std::time::Duration;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, Responder, web};
use metrics_exporter_prometheus::PrometheusHandle;
use mundap_infra::SeaStore;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::Board;
use crate::health::{Doctor, Health, Images};
use crate::telemetry::{self, Log};

pub struct Ops {
    pub board: web::Data<Board>,
    pub store: SeaStore,
    pub doctor: Doctor,
}

/// What the operators' port asks: nothing, as long as the board waits for its database, or migrates it.
#[derive(Default)]
pub struct Desk(OnceLock<web::Data<Ops>>);

impl Desk {
    /// From now on there is a board to ask about.
    pub fn open(&self, ops: web::Data<Ops>) {
        // It is opened once.
        let _ = self.0.set(ops);
    }

    fn ops(&self) -> Option<&web::Data<Ops>> {
        self.0.get()
    }
}

impl Ops {
    /// Whether requests should come here.
    pub(crate) fn is_ready(&self, health: Health) -> bool {
        health.is_ready() && !self.board.is_draining()
    }
}

/// A filter is short.
const FILTER_BYTES: usize = 8 * 1024;

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .app_data(web::PayloadConfig::new(FILTER_BYTES))
        .service(web::resource("/livez").route(web::get().to(livez)).route(web::head().to(livez)))
        .service(web::resource("/readyz").route(web::get().to(readyz)).route(web::head().to(readyz)))
        .service(web::resource("/metrics").route(web::get().to(metrics)))
        .service(web::resource("/log").route(web::get().to(log)).route(web::put().to(set_log)));
}

/// Whether the process runs; never asks the database.
async fn livez() -> impl Responder {
    HttpResponse::Ok().json(json!({"status": "alive"}))
}

/// Whether requests should come here, and which part says no.
async fn readyz(desk: web::Data<Desk>) -> impl Responder {
    let Some(ops) = desk.ops() else {
        return HttpResponse::ServiceUnavailable().json(json!({"status": "starting"}));
    };
    let health = ops.doctor.health().await;
    let (draining, ready) = (ops.board.is_draining(), ops.is_ready(health));
    let mut body = json!(health);
    body["status"] = if ready { "ready" } else { "not ready" }.into();
    body["draining"] = draining.into();
    if ready { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}

/// Prometheus' text format.
async fn metrics(desk: web::Data<Desk>, counted: web::Data<PrometheusHandle>) -> impl Responder {
    let ready = match desk.ops() {
        None => false,
        Some(ops) => {
            let is_shared = ops.doctor.images() == Images::Ok;
            metrics::gauge!("mundap_image_folder_shared").set(if is_shared { 1.0 } else { 0.0 });
            let in_flight = u32::try_from(ops.board.in_flight()).unwrap_or(u32::MAX);
            metrics::gauge!("mundap_http_requests_in_flight").set(in_flight);
            ops.store.report_pools();
            ops.is_ready(ops.doctor.health().await)
        }
    };
    metrics::gauge!("mundap_ready").set(if ready { 1.0 } else { 0.0 });
    telemetry::report_process();
    counted.run_upkeep();
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(counted.render())
}

/// What is logged, as a filter.
async fn log() -> impl Responder {
    Log::get().map_or_else(no_log, |log| HttpResponse::Ok().json(json!({"filter": log.filter()})))
}

fn no_log() -> HttpResponse {
    HttpResponse::ServiceUnavailable().json(json!({"error": "this process does not log"}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFilter {
    filter: String,
    /// Such as `10m`: then it is again what was last set without one.
    #[serde(default)]
    r#for: Option<String>,
}

/// Changes what is logged: the body is a filter, as text or as JSON.
async fn set_log(req: HttpRequest, body: web::Bytes) -> impl Responder {
    let refuse = |reason: String| HttpResponse::BadRequest().json(json!({"error": reason}));
    let Some(log) = Log::get() else { return no_log() };
    let content_type = req.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let new = if content_type.starts_with("application/json") {
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    } else {
        String::from_utf8(body.to_vec())
            .map(|text| NewFilter { filter: text.trim().to_owned(), r#for: None })
            .map_err(|error| error.to_string())
    };
    let new = match new {
        Ok(new) => new,
        Err(reason) => return refuse(reason),
    };
    let time = match new.r#for.as_deref().map(humantime::parse_duration).transpose() {
        Ok(time) => time,
        Err(error) => return refuse(format!("for: {error}")),
    };
    match log.set(&new.filter, time.is_none()) {
        Ok(change) => {
            if let Some(time) = time {
                actix_web::rt::spawn(revert(log, change, time));
            }
            HttpResponse::Ok().json(changed(&new.filter, time))
        }
        Err(reason) => refuse(reason),
    }
}

fn changed(filter: &str, time: Option<Duration>) -> Value {
    let mut body = json!({"filter": filter});
    if let Some(time) = time {
        body["for"] = humantime::format_duration(time).to_string().into();
    }
    body
}

/// Takes a change back, unless another came after it.
async fn revert(log: &'static Log, change: u64, time: Duration) {
    tokio::time::sleep(time).await;
    if let Err(reason) = log.take_back(change) {
        tracing::warn!(reason, "the log's filter cannot be taken back: {reason}");
    }
}
