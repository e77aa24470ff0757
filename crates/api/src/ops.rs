//! The operators' port: is it alive, is it ready, what did it count.

use std::time::Duration;

use actix_web::{HttpResponse, Responder, web};
use metrics_exporter_prometheus::PrometheusHandle;
use mundap_infra::SeaStore;
use serde_json::json;

use crate::app::Board;

/// How long the database may take to answer before the node counts as not ready.
const PATIENCE: Duration = Duration::from_secs(1);

pub struct Ops {
    pub board: web::Data<Board>,
    pub store: SeaStore,
    pub metrics: PrometheusHandle,
}

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/livez", web::get().to(livez))
        .route("/readyz", web::get().to(readyz))
        .route("/metrics", web::get().to(metrics));
}

/// Whether the process runs; never asks the database.
async fn livez() -> impl Responder {
    HttpResponse::Ok().json(json!({"status": "alive"}))
}

/// Whether requests should come here, and which part says no.
async fn readyz(ops: web::Data<Ops>) -> impl Responder {
    let database = match tokio::time::timeout(PATIENCE, ops.store.ping()).await {
        Ok(Ok(())) => "ok",
        Ok(Err(_)) => "unreachable",
        Err(_) => "slow",
    };
    let draining = ops.board.is_draining();
    let ready = database == "ok" && !draining;
    let status = if ready { "ready" } else { "not ready" };
    let body = json!({"status": status, "database": database, "draining": draining});
    if ready { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}

/// Prometheus' text format.
async fn metrics(ops: web::Data<Ops>) -> impl Responder {
    ops.metrics.run_upkeep();
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(ops.metrics.render())
}
