//! The OpenAPI document, and whether an answer is one that it describes.

use serde_json::Value;

pub(crate) struct Document(pub(crate) Value);

/// One operation of the document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation<'a> {
    /// In lower case.
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) about: &'a Value,
}

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

impl Document {
    pub(crate) fn parse(text: &str) -> Self {
        Self(serde_json::from_str(text).expect("the document is JSON"))
    }

    pub(crate) fn paths(&self) -> Vec<&str> {
        self.0["paths"].as_object().expect("paths").keys().map(String::as_str).collect()
    }

    pub(crate) fn operations(&self) -> Vec<Operation<'_>> {
        let mut operations = Vec::new();
        for (path, item) in self.0["paths"].as_object().expect("paths") {
            for (method, about) in item.as_object().expect("a path item") {
                if METHODS.contains(&method.as_str()) {
                    operations.push(Operation { method, path, about });
                }
            }
        }
        operations
    }

    /// The operation that a request reaches. A `HEAD` is the `GET` it stands for.
    pub(crate) fn operation(&self, method: &str, path: &str) -> Option<Operation<'_>> {
        let method = if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() };
        let path = path.split('?').next().unwrap_or_default();
        let template = self.template(path)?;
        self.operations().into_iter().find(|operation| operation.path == template && operation.method == method)
    }

    /// The path of the document that a request's path is an instance of; what is spelled out goes before a parameter.
    pub(crate) fn template(&self, path: &str) -> Option<&str> {
        let fits = |template: &&&str| {
            template.split('/').count() == path.split('/').count()
                && template.split('/').zip(path.split('/')).all(|(part, asked)| part.starts_with('{') || part == asked)
        };
        let paths = self.paths();
        paths.iter().find(|template| **template == path).or_else(|| paths.iter().find(fits)).copied()
    }

    /// What `$ref` refers to, or the schema itself.
    pub(crate) fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            None => schema,
            Some(reference) => {
                let found = self.0.pointer(reference.trim_start_matches('#'));
                found.unwrap_or_else(|| panic!("the document refers to {reference}, which is not in it"))
            }
        }
    }

    /// The schema of a JSON body that the operation takes.
    pub(crate) fn request_schema<'a>(&'a self, operation: Operation<'a>) -> Option<&'a Value> {
        let content = &operation.about["requestBody"]["content"]["application/json"];
        content.get("schema").map(|schema| self.resolve(schema))
    }

    /// Where `value` is not what `schema` says, in words.
    pub(crate) fn mismatch(&self, schema: &Value, value: &Value) -> Option<String> {
        self.compare(schema, value, "").err()
    }

    fn compare(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let schema = self.resolve(schema);
        let complain = |what: &str| Err(format!("{at}: {value:.300} {what}"));
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.compare(part, value, at)?;
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => return Ok(()),
        };
        if !types.iter().any(|name| has_type(value, name)) {
            return complain(&format!("is no {types:?}"));
        }
        if let Some(words) = schema["enum"].as_array()
            && !words.contains(value)
        {
            return complain("is none of the words allowed");
        }
        match value {
            Value::Object(fields) => {
                let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
                if let Some(missing) =
                    required.iter().filter_map(Value::as_str).find(|name| !fields.contains_key(*name))
                {
                    return complain(&format!("lacks {missing}"));
                }
                let Some(properties) = schema["properties"].as_object() else { return Ok(()) };
                for (name, field) in fields {
                    let Some(schema) = properties.get(name) else {
                        return complain(&format!("has a {name} that the document does not know"));
                    };
                    self.compare(schema, field, &format!("{at}/{name}"))?;
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.compare(&schema["items"], item, &format!("{at}/{index}"))?;
                }
            }
            Value::Number(number) => {
                let beyond = |name: &str, outside: fn(i64, i64) -> bool| {
                    number.as_i64().zip(schema[name].as_i64()).is_some_and(|(n, limit)| outside(n, limit))
                };
                if beyond("minimum", |n, limit| n < limit) || beyond("maximum", |n, limit| n > limit) {
                    return complain("is out of its range");
                }
            }
            Value::String(text) => {
                let length = text.chars().count() as u64;
                if schema["maxLength"].as_u64().is_some_and(|most| length > most)
                    || schema["minLength"].as_u64().is_some_and(|least| length < least)
                {
                    return complain("is too long or too short");
                }
                if schema["format"] == "date-time" && !is_time(text) {
                    return complain("is no time in UTC with microseconds");
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        Ok(())
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("there is no type {other} in JSON Schema"),
    }
}

/// `2026-01-02T12:00:00.000000Z`
pub(crate) fn is_time(text: &str) -> bool {
    let pattern = "0000-00-00T00:00:00.000000Z";
    text.len() == pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(b, p)| if p == b'0' { b.is_ascii_digit() } else { b == p })
}
