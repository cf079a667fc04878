// Package registry is the domain of the registry: components and their
// versions, configurations and their revisions, uploads on their way to
// become versions. It is pure: storage comes in as Meta, Blobs and Spool,
// archive checking as a function, time as a clock.
package registry
