//! The operations' names, and the links between them: from what makes a thing to what reads, changes and deletes it.

use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{Object, Schema};
use utoipa::openapi::{OpenApi, Ref, RefOr, Response};

use super::document::operations;

/// Names every operation after its handler and, unless the handler's name says it, the resource at its path's end:
/// `read` of `/api/v1/qna/{qna_id}` is `read_qna`. Handlers of several resources share their names, and a document must
/// not use one twice.
pub fn name_operations(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let resource = path.rsplit('/').find(|segment| !segment.starts_with('{')).unwrap_or_default();
        let resource = resource.split('.').next().unwrap_or_default();
        for (_, operation) in operations(item) {
            if let Some(name) = operation.operation_id.as_mut().filter(|name| !name.contains(resource)) {
                name.push('_');
                name.push_str(resource);
            }
        }
    }
}

/// Links each 201 to the operations whose path takes nothing but an id that its body holds.
pub fn link(document: &mut OpenApi) {
    let mut targets: Vec<(String, String)> = Vec::new();
    for (path, item) in &mut document.paths.paths {
        let mut parameters = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        if let (Some(parameter), None) = (parameters.next(), parameters.next()) {
            let names = operations(item).filter_map(|(_, operation)| operation.operation_id.clone());
            targets.extend(names.map(|name| (name, parameter.to_owned())));
        }
    }
    let components = document.components.clone().unwrap_or_default();
    let made = |reference: &str| match components.schemas.get(reference.rsplit('/').next()?)? {
        RefOr::T(Schema::Object(made)) => Some(made),
        RefOr::T(_) | RefOr::Ref(_) => None,
    };
    for item in document.paths.paths.values_mut() {
        for (_, operation) in operations(item) {
            let Some((created, reference)) = created(operation) else { continue };
            let Some(made) = made(&reference) else { continue };
            for (name, parameter) in targets.iter().filter(|(_, parameter)| holds(made, parameter)) {
                let value = format!("$response.body#/{parameter}");
                let link = LinkBuilder::new().operation_id(name).parameter(parameter, value).build();
                created.links.insert(name.clone(), link.into());
            }
        }
    }
}

fn holds(object: &Object, property: &str) -> bool {
    object.properties.contains_key(property)
}

/// The operation's 201 and what its body refers to.
fn created(operation: &mut Operation) -> Option<(&mut Response, String)> {
    let RefOr::T(response) = operation.responses.responses.get_mut("201")? else { return None };
    let RefOr::T(content) = response.content.get("application/json")? else { return None };
    let Some(RefOr::Ref(Ref { ref_location, .. })) = &content.schema else { return None };
    let reference = ref_location.clone();
    Some((response, reference))
}
