package wire

import "errors"

// What can go wrong between a registry and those who call it. An error of
// registry/client wraps one of these where it fits; each has its exit status.
var (
	// ErrUnreachable: nobody answered, or the connection broke. Try again.
	ErrUnreachable = errors.New("registry is unreachable")
	// ErrUntrusted: whoever answered has another host key than the known one,
	// or refused our key. Nothing was sent or fetched.
	ErrUntrusted = errors.New("registry is not trusted")
	// ErrDenied: the registry knows the key, which may not do this.
	ErrDenied = errors.New("permission denied")
	// ErrNotFound: the registry has nothing of this name that the key may see.
	ErrNotFound = errors.New("not found")
)
