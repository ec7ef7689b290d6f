//! Tests of the library through its public interface, in one binary.

mod transfer;
