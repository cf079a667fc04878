// Package enginetest proves that a storage engine keeps the contracts of
// package registry, and has an engine in memory for tests of the domain.
//
// The suites Meta, Blobs, Spool and Adopter are called from the tests of each
// engine. They get a function that opens a new, empty engine; it registers its
// own cleaning up with t.Cleanup, and bears that the suite closes the engine
// before. Each claim is a subtest of its own:
//
//	func TestMeta(t *testing.T) {
//		enginetest.Meta(t, func(t *testing.T) registry.Meta { return open(t) })
//	}
//
// The engine in memory is optimistic, as a distributed one would be: Updates
// run side by side and run again when another one changed what they read.
// NewBlobs can adopt an upload and NewCopyingBlobs cannot, so that both ways of
// the domain meet an engine. All of it is safe for concurrent use.
package enginetest
