// Package keys reads authorized_keys files: which keys there are, what each
// stands for, and under which conditions; and lists of what is revoked. It is
// pure: text in, a Set out; reading files, and saying which kinds of keys are
// good enough, is left to the caller.
//
// A line is [OPTIONS] TYPE BASE64 [COMMENT], as sshd(8) describes it. Empty
// lines and lines that start with # are comments. A line that is not understood
// in full gives nobody access, and the others still count: an option that was
// skipped could have narrowed what the key may do. A list of what is revoked is
// the other way round: what is understood counts, whatever else is wrong.
//
// A Set and a Revoked never change, and are safe for concurrent use.
package keys
