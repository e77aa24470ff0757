//! What no route answers: 404, or 405 with `Allow` where the path is there under another method. The table is the OpenAPI
//! document itself, so that a new route is in it by construction, and the pages beside it.

use actix_web::http::Method;
use actix_web::http::header::ALLOW;
use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::PathItem;

use crate::problem::Problem;
use crate::routes::seed;
use crate::{account, docs};

/// Which methods each path answers.
#[derive(Debug)]
pub struct Routes(Vec<(Vec<String>, Vec<Method>)>);

impl Routes {
    #[must_use]
    pub fn of(document: &OpenApi) -> Self {
        let segments = |path: &str| path.split('/').map(str::to_owned).collect();
        let documented = document.paths.paths.iter().map(|(path, item)| (segments(path), methods(item)));
        let pages = docs::PAGES.iter().chain(&account::PAGES);
        let shown = pages.map(|path| (segments(path), vec![Method::GET, Method::HEAD]));
        Self(documented.chain(shown).collect())
    }

    /// The methods of `path`; empty where there is no such path.
    #[must_use]
    pub fn allowed(&self, path: &str) -> Vec<Method> {
        let asked: Vec<&str> = path.split('/').collect();
        let fits = |template: &Vec<String>| {
            template.len() == asked.len()
                && template
                    .iter()
                    .zip(&asked)
                    .all(|(part, asked)| if part.starts_with('{') { !asked.is_empty() } else { part == asked })
        };
        // `/users/me` is also a `/users/{user_id}`: what is spelled out goes before what is a parameter.
        let exact = self.0.iter().find(|(template, _)| template.iter().eq(&asked));
        exact.or_else(|| self.0.iter().find(|(template, _)| fits(template))).map_or_else(Vec::new, |(_, m)| m.clone())
    }
}

fn methods(item: &PathItem) -> Vec<Method> {
    [
        (&item.get, Method::GET),
        (&item.get, Method::HEAD),
        (&item.post, Method::POST),
        (&item.put, Method::PUT),
        (&item.patch, Method::PATCH),
        (&item.delete, Method::DELETE),
    ]
    .into_iter()
    .filter(|(operation, _)| operation.is_some())
    .map(|(_, method)| method)
    .collect()
}

/// The default service.
pub async fn fallback(req: HttpRequest, routes: web::Data<Routes>) -> Result<HttpResponse, Problem> {
    let allowed = routes.allowed(req.path());
    if allowed.is_empty() {
        return Err(Problem::route_not_found());
    }
    if seed::is_path(req.path()) {
        let names = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        return Ok(HttpResponse::MethodNotAllowed()
            .insert_header((ALLOW, names))
            .json(serde_json::json!({"detail": "Method Not Allowed"})));
    }
    Err(Problem::method_not_allowed(&allowed))
}
