//! Says at compile time which version of the driver Cargo.lock names.

fn main() {
    println!("cargo:rerun-if-changed=Cargo.lock");
    let lock = std::fs::read_to_string("Cargo.lock").expect("Cargo.lock");
    let version = lock
        .split("[[package]]")
        .find(|package| package.contains("name = \"mongodb\"\n"))
        .and_then(|package| package.split("version = \"").nth(1)?.split('"').next())
        .expect("mongodb in Cargo.lock");
    println!("cargo:rustc-env=COMPAT_DRIVER_VERSION={version}");
}
