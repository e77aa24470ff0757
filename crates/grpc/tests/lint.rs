//! The rules that `proto/` keeps: buf's STANDARD and COMMENTS, less what Google's design guide says otherwise (an update
//! answers with the resource itself, not with a message of its own).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};

use mundap_grpc::{DESCRIPTORS, Method};
use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
};

fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    set.file.into_iter().filter(|file| file.package().starts_with("mundap")).collect()
}

/// Whether the element at this path of a file has a comment before it.
fn comments(file: &FileDescriptorProto) -> BTreeSet<Vec<i32>> {
    let locations = &file.source_code_info.as_ref().unwrap().location;
    let commented = locations.iter().filter(|location| !location.leading_comments().trim().is_empty());
    commented.map(|location| location.path.clone()).collect()
}

fn is_snake(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(good)
        && !name.contains("__")
        && !name.ends_with('_')
        && !name.split('_').any(|word| word.starts_with(|c: char| c.is_ascii_digit()))
}

fn is_pascal(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric())
}

/// `SortOrder` is `SORT_ORDER`.
fn screaming(name: &str) -> String {
    let mut text = String::new();
    for (index, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && index > 0 {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

/// What is wrong with a file.
struct Lint<'a> {
    file: &'a FileDescriptorProto,
    commented: BTreeSet<Vec<i32>>,
    faults: Vec<String>,
}

impl Lint<'_> {
    fn expect(&mut self, good: bool, what: &str, rule: &str) {
        if !good {
            self.faults.push(format!("{}: {what} {rule}", self.file.name()));
        }
    }

    fn commented(&mut self, path: &[i32], what: &str) {
        let good = self.commented.contains(path);
        self.expect(good, what, "has no comment");
    }

    fn message(&mut self, path: &[i32], message: &DescriptorProto) {
        let name = message.name();
        self.commented(path, name);
        self.expect(is_pascal(name), name, "is not in PascalCase");
        for (index, field) in message.field.iter().enumerate() {
            let what = format!("{name}.{}", field.name());
            self.commented(&[path, &[2, place(index)]].concat(), &what);
            self.expect(is_snake(field.name()), &what, "is not in lower_snake_case");
            let is_time = field.type_name() == ".google.protobuf.Timestamp";
            self.expect(
                !is_time || field.name().ends_with("_time"),
                &what,
                "is a time and does not end in _time (AIP-142)",
            );
            let is_count = matches!(field.r#type(), Type::Float | Type::Double);
            self.expect(!is_count, &what, "is a floating-point number");
        }
        for (index, oneof) in message.oneof_decl.iter().enumerate() {
            // An optional field is one of its own kind, named with an underscore.
            if !oneof.name().starts_with('_') {
                let what = format!("{name}.{}", oneof.name());
                self.commented(&[path, &[8, place(index)]].concat(), &what);
                self.expect(is_snake(oneof.name()), &what, "is not in lower_snake_case");
            }
        }
        self.expect(message.nested_type.is_empty() && message.enum_type.is_empty(), name, "has types within it");
    }

    fn r#enum(&mut self, path: &[i32], r#enum: &EnumDescriptorProto) {
        let name = r#enum.name();
        self.commented(path, name);
        self.expect(is_pascal(name), name, "is not in PascalCase");
        let prefix = screaming(name);
        for (index, value) in r#enum.value.iter().enumerate() {
            let what = value.name().to_owned();
            self.commented(&[path, &[2, place(index)]].concat(), &what);
            self.expect(what.starts_with(&format!("{prefix}_")), &what, "does not begin with its enum's name");
            let is_zero = value.number() == 0;
            self.expect(is_zero == what.ends_with("_UNSPECIFIED"), &what, "is not the zero that is unspecified");
            self.expect(is_zero == (index == 0), &what, "is not where the zero belongs");
        }
    }

    fn service(&mut self, path: &[i32], service: &ServiceDescriptorProto) {
        let name = service.name();
        self.commented(path, name);
        self.expect(name.ends_with("Service"), name, "does not end in Service");
        for (index, method) in service.method.iter().enumerate() {
            let (what, rpc) = (format!("{name}.{}", method.name()), method.name());
            self.commented(&[path, &[2, place(index)]].concat(), &what);
            self.expect(is_pascal(rpc), &what, "is not in PascalCase");
            let asks = format!(".mundap.v1.{rpc}Request");
            self.expect(method.input_type() == asks, &what, "does not take a request of its own name");
            let output = method.output_type();
            let own = output == format!(".mundap.v1.{rpc}Response");
            let is_resource = !output.ends_with("Response") && !output.ends_with("Request");
            self.expect(own || is_resource, &what, "answers with what is another's");
            // AIP-131 to AIP-135.
            let takes = |verb: &str| rpc.strip_prefix(verb).is_some_and(|noun| noun.starts_with(char::is_uppercase));
            if takes("List") {
                self.expect(own, &what, "lists, and answers with no page");
            }
            if takes("Get") || takes("List") || takes("Stream") || takes("Download") || takes("Export") {
                let is_safe = Method::all().any(|method| {
                    method.name == format!("mundap.v1.{name}/{rpc}") && {
                        method.purpose == mundap_grpc::Purpose::Reads
                    }
                });
                self.expect(is_safe, &what, "only reads, and does not say so");
            }
            if takes("Delete") {
                self.expect(output == ".google.protobuf.Empty", &what, "deletes, and answers with something");
            }
        }
    }
}

fn place(index: usize) -> i32 {
    i32::try_from(index).unwrap()
}

#[test]
fn the_contract_keeps_the_rules() {
    let mut faults = Vec::new();
    for file in files() {
        let mut lint = Lint { file: &file, commented: comments(&file), faults: Vec::new() };
        let name = file.name();
        lint.expect(file.package() == "mundap.v1", name, "is of another package than mundap.v1");
        let (folder, stem) = name.rsplit_once('/').unwrap();
        lint.expect(folder == "mundap/v1", name, "does not lie in its package's folder");
        lint.expect(is_snake(stem.trim_end_matches(".proto")), name, "is not in lower_snake_case");
        lint.expect(file.syntax() == "proto3", name, "is not proto3");
        lint.expect(file.public_dependency.is_empty() && file.weak_dependency.is_empty(), name, "imports in public");
        // 12 is where the syntax stands, 4 messages, 5 enums, 6 services.
        lint.commented(&[12], name);
        for (index, message) in file.message_type.iter().enumerate() {
            lint.message(&[4, place(index)], message);
        }
        for (index, r#enum) in file.enum_type.iter().enumerate() {
            lint.r#enum(&[5, place(index)], r#enum);
        }
        for (index, service) in file.service.iter().enumerate() {
            lint.service(&[6, place(index)], service);
        }
        faults.extend(lint.faults);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_message_is_used_by_a_method_and_every_import_by_its_file() {
    let files = files();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut begin = Vec::new();
    for file in &files {
        let mut of_file = BTreeSet::new();
        for message in &file.message_type {
            let types: BTreeSet<String> = message.field.iter().map(|field| field.type_name().to_owned()).collect();
            of_file.extend(types.iter().cloned());
            uses.insert(format!(".mundap.v1.{}", message.name()), types);
        }
        for method in file.service.iter().flat_map(|service| &service.method) {
            let types = [method.input_type().to_owned(), method.output_type().to_owned()];
            of_file.extend(types.iter().cloned());
            begin.extend(types);
        }
        for import in &file.dependency {
            let declares = |name: &str| match import.strip_prefix("mundap/v1/") {
                Some(_) => {
                    let other = files.iter().find(|file| file.name() == import).unwrap();
                    let names = other.message_type.iter().map(DescriptorProto::name);
                    names.chain(other.enum_type.iter().map(EnumDescriptorProto::name)).any(|declared| name == declared)
                }
                // `google/protobuf/field_mask.proto` is `FieldMask`.
                None => {
                    import.rsplit('/').next().unwrap().replace(['_'], "") == format!("{}.proto", name.to_lowercase())
                }
            };
            let is_needed = of_file.iter().any(|name| declares(name.rsplit('.').next().unwrap()));
            assert!(is_needed, "{} imports {import} for nothing", file.name());
        }
    }
    let mut reached: BTreeSet<String> = BTreeSet::new();
    while let Some(name) = begin.pop() {
        if reached.insert(name.clone()) {
            begin.extend(uses.get(&name).into_iter().flatten().cloned());
        }
    }
    let idle: Vec<_> = uses.keys().filter(|name| !reached.contains(*name)).collect();
    assert!(idle.is_empty(), "{idle:?}");
}

#[test]
fn every_method_is_known_by_its_nature() {
    let methods: BTreeMap<&str, &Method> = Method::all().map(|method| (&*method.name, method)).collect();
    assert!(methods.len() > 25, "{methods:?}");
    for (name, method) in &methods {
        assert_eq!(Method::at(&format!("/{name}")), Some(*method));
    }
    let of = |load| methods.values().filter(|method| method.load == load).count();
    // The lists of names in `method.rs` hold no name that is no method's.
    assert_eq!(of(mundap_grpc::Load::Hashes), 4);
    let for_purpose = |purpose| methods.values().filter(|method| method.purpose == purpose).count();
    assert_eq!(for_purpose(mundap_grpc::Purpose::GuardsAccounts), 4);
    assert_eq!(for_purpose(mundap_grpc::Purpose::SignsIn), 1);
    assert_eq!(for_purpose(mundap_grpc::Purpose::Renews), 2);
    let declared: BTreeSet<String> = files()
        .iter()
        .flat_map(|file| file.service.iter().map(|service| format!("{}.{}", file.package(), service.name())))
        .collect();
    assert!(declared.len() >= 7, "{declared:?}");
    assert_eq!(mundap_grpc::method::services().collect::<Vec<_>>(), declared.iter().collect::<Vec<_>>());
    assert_eq!(Method::at("mundap.v1.QnaService/GetQna"), None);
    assert_eq!(Method::at("/mundap.v1.QnaService/getQna"), None);
}
