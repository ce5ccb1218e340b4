//! order-processor
