// Package layers reads and writes layers: tar archives in gzip that hold parts
// of a file tree. Check says whether an archive may be a layer, Unpack stacks
// several into a directory, Pack makes one from a directory. All three hold the
// same rules, because they run the same reader: what the registry accepted, an
// agent unpacks, and what an agent refuses, `deployctl lint` refuses with the
// same words. docs/layer-format.md lists the rules.
//
// A refused archive gives a *Refusal, which wraps ErrRefused: asking again
// cannot help. Every other error (the source, the disk, the context, a wrong
// digest) says nothing about the archive.
//
// The functions are safe for concurrent use and keep no state. They do not
// sync: whoever owns the directory makes it durable (package atomic) before
// anything refers to it. After an error the directory holds a part of the
// tree and must be discarded.
//
//	info, err := layers.Check(ctx, "web:7", file, layers.Options{})
//	info, err := layers.Unpack(ctx, dir, []layers.Layer{{Name: "web:7", Open: open}}, layers.Options{})
package layers
