//! Who may use the proxy, and how much.
