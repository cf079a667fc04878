// Package keys reads authorized_keys files: which keys there are and what each
// stands for. It is pure: text in, a Set out; reading files, and saying which
// kinds of keys are good enough, is left to the caller.
//
// A line is [OPTIONS] TYPE BASE64 [COMMENT], as sshd(8) describes it. Empty
// lines and lines that start with # are comments. A line that is not understood
// in full gives nobody access, and the others still count: an option that was
// skipped could have narrowed what the key may do.
//
// A Set never changes, and is safe for concurrent use.
package keys
