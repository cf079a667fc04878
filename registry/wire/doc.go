// Package wire holds every document that crosses a boundary between the
// programs: exit statuses, the rule for names, configurations as agents read
// them, the poll, the report. It is nouns and validation; decisions live in
// registry and agent. It is pure, and its values are safe for concurrent reading.
//
// Compatibility: JSON keeps the capitalised keys of the original tool set. New
// fields are only ever added, and readers ignore those that they do not know.
// Golden files under testdata hold each format.
package wire
