//! loyalty
