// Package console is the registry's commands: one table (Commands) that
// `ssh host COMMAND`, `ssh host < script`, the interactive console and
// deployctl all run through Exec and Script. A command is one struct, whose
// fields are its flags, and calls one method of registry.Registry; it returns
// a Result, which is shown as text or marshalled under -json.
//
// Results go to Stdout. Errors go to Stderr as the lines `error: ...` and, where
// there is something to do about it, `hint: ...`. Exit statuses are wire's.
// Nothing that a client sent is shown with control characters.
//
// The package is pure. Sessions are independent of each other; one Session runs
// one command at a time.
package console
