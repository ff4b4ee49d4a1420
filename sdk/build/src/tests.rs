use prost_reflect::DescriptorPool;

use super::*;

const CONTRACT: &str = r#"
syntax = "proto3";
package notes.v1;
import "buf/validate/validate.proto";
import "drawbridge/mcp/v1/interaction.proto";
import "drawbridge/mcp/v1/options.proto";
import "google/protobuf/timestamp.proto";

// NoteService has notes.
service NoteService {
  option (drawbridge.mcp.v1.service) = { namespace: "notes" };
  // Finds notes.
  rpc Find(Note) returns (Note) { option (drawbridge.mcp.v1.tool) = {}; }
}
message Note {
  string name = 1 [(buf.validate.field).string.min_len = 1];
  drawbridge.mcp.v1.InputResponses interaction = 2;
  google.protobuf.Timestamp at = 3;
}
"#;

/// Generates the code of a folder with these files, and returns the contents of the generated ones.
fn generated(files: &[(&str, &str)]) -> Result<impl Fn(&str) -> Vec<u8> + use<>, BuildError> {
    let folder = tempfile::tempdir().unwrap();
    let (protos, out) = (folder.path().join("proto"), folder.path().join("out"));
    fs::create_dir_all(&out).unwrap();
    for (name, text) in files {
        let path = protos.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    generate(&protos, &out)?;
    Ok(move |name: &str| {
        let _ = &folder;
        fs::read(out.join(name)).unwrap()
    })
}

#[test]
fn generated_code_needs_no_crate_but_the_sdk() {
    let read = generated(&[("notes/v1/notes.proto", CONTRACT)]).unwrap();
    let code = String::from_utf8(read("notes.v1.rs")).unwrap();
    for path in ["::prost::", "::prost_types::", "::tonic_prost::", "::drawbridge_proto::"] {
        let foreign = code.replace(&format!("::drawbridge_sdk{path}"), "").contains(path);
        assert!(!foreign, "{path}:\n{code}");
    }
    assert!(code.contains("::drawbridge_sdk::mcp::InputResponses"), "{code}");
    assert!(!code.contains("use tonic::codegen::*"), "{code}");
    let modules = String::from_utf8(read("contract.rs")).unwrap();
    assert!(modules.contains("pub mod r#notes") && modules.contains("DESCRIPTORS"), "{modules}");
}

#[test]
fn descriptors_have_imports_comments_and_options() {
    // A copy of an import beside the contract is not generated once more.
    let copy = IMPORTS[3];
    let read = generated(&[("notes/v1/notes.proto", CONTRACT), copy]).unwrap();
    let pool = DescriptorPool::decode(read("descriptors.binpb").as_slice()).unwrap();
    let service = pool.get_service_by_name("notes.v1.NoteService").unwrap();
    let option = pool.get_extension_by_name("drawbridge.mcp.v1.service").unwrap();
    assert!(service.options().has_extension(&option));
    let file = service.parent_file();
    let comments = &file.file_descriptor_proto().source_code_info.as_ref().unwrap().location;
    assert!(comments.iter().any(|at| at.leading_comments() == " Finds notes.\n"));
}

#[test]
fn an_invalid_contract_is_named_with_its_place() {
    let broken = CONTRACT.replace("string name = 1", "strin name = 1");
    let error = generated(&[("notes/v1/notes.proto", &broken)]).map(drop).unwrap_err().to_string();
    assert!(error.contains("notes/v1/notes.proto:16:3") && error.contains("strin"), "{error}");
    let unnamed = CONTRACT.replace("package notes.v1;", "");
    let error = generated(&[("a.proto", &unnamed)]).map(drop).unwrap_err();
    assert!(matches!(error, BuildError::NoPackage { .. }), "{error}");
    let none = generated(&[("notes/README", "")]).map(drop).unwrap_err();
    assert!(matches!(none, BuildError::NoProto { .. }), "{none}");
}
