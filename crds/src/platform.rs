//! x
#[derive(Debug)] pub struct TankaPlatform; #[derive(Debug)] pub struct TankaPlatformSpec; #[derive(Debug)] pub struct TankaPlatformStatus;
