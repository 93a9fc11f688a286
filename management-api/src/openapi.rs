//! The OpenAPI document of the API: made from the handlers, so it cannot forget one.
//!
//! What all operations of a kind have in common (who may ask, what a refusal looks like) is added
//! here, once.

use std::sync::OnceLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response};
use utoipa_axum::router::OpenApiRouter;

use crate::api::{guarded_routes, open_routes, operations_routes};
use crate::error::ErrorBody;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "simgate management API",
        description = "The management API of a simgate gateway. Paths below \
            `/management-api/v1/` are those of 1NCE OS; paths below `/management-api/simgate/v1/` \
            are simgate's own, by the same conventions.\n\n\
            Get a token from `/management-api/oauth/token` and send it as \
            `Authorization: Bearer <token>`.",
    ),
    components(schemas(ErrorBody)),
    security(("bearer" = [])),
)]
struct Outline;

/// The document as JSON, with a line end.
pub fn openapi_json() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        // A document that utoipa made always serialises.
        let mut text = openapi().to_pretty_json().unwrap_or_default();
        text.push('\n');
        text
    })
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json",
    operation_id = "getOpenApi", tag = "simgate", security(()),
    responses((status = 200, description = "The document.", body = Object))
)]
pub(crate) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi_json())
}

fn openapi() -> OpenApi {
    let mut guarded = document_of(guarded_routes());
    each_operation(&mut guarded, |operation| {
        refusal(operation, "401", "No token, or one that is not valid any more.");
        refusal(operation, "429", "Too many requests; `Retry-After` says how long to wait.");
    });
    let mut document = Outline::openapi();
    document.merge(guarded);
    document.merge(document_of(open_routes()));
    document.merge(document_of(operations_routes()));
    each_operation(&mut document, describe_refusals);
    add_security_schemes(&mut document);
    document
}

fn document_of<S: Clone + Send + Sync + 'static>(routes: OpenApiRouter<S>) -> OpenApi {
    routes.into_openapi()
}

fn each_operation(document: &mut OpenApi, mut act: impl FnMut(&mut Operation)) {
    for item in document.paths.paths.values_mut() {
        let operations =
            [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete, &mut item.put];
        operations.into_iter().flatten().for_each(&mut act);
    }
}

/// The refusals that follow from what an operation takes.
fn describe_refusals(operation: &mut Operation) {
    // The token endpoint has its own shape of error and describes it itself.
    if operation.responses.responses.contains_key("400") {
        return;
    }
    let has_body = operation.request_body.is_some();
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    let in_path = parameters.iter().any(|parameter| match parameter {
        RefOr::T(parameter) => parameter.parameter_in == ParameterIn::Path,
        RefOr::Ref(_) => false,
    });
    if has_body || !parameters.is_empty() {
        refusal(operation, "400", "A parameter or the body is wrong.");
    }
    if in_path {
        refusal(operation, "404", "It does not exist.");
    }
    if has_body {
        refusal(operation, "408", "The body did not arrive in time.");
        refusal(operation, "413", "The body is too long.");
        refusal(operation, "415", "The body has another content type.");
    }
    refusal(operation, "500", "The gateway failed.");
}

fn refusal(operation: &mut Operation, status: &str, description: &str) {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build();
    let response: Response = ResponseBuilder::new()
        .description(description)
        .content("application/json", content)
        .build();
    let responses = &mut operation.responses.responses;
    responses.entry(status.to_owned()).or_insert(RefOr::T(response));
}

fn add_security_schemes(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    let http = |scheme, format: Option<&str>| {
        let mut builder = HttpBuilder::new().scheme(scheme);
        if let Some(format) = format {
            builder = builder.bearer_format(format);
        }
        SecurityScheme::Http(builder.build())
    };
    components.add_security_scheme("bearer", http(HttpAuthScheme::Bearer, Some("JWT")));
    components.add_security_scheme("basic", http(HttpAuthScheme::Basic, None));
}
