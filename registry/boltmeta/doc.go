// Package boltmeta is registry.Meta over one bbolt file.
//
// The file has two buckets: "m2" with the keys and values of the domain, and
// "about" with the key "format", a decimal number. This package writes format
// 2; upstream's layout, which has neither bucket, counts as 1. A file of
// another format is refused and left as it is.
//
// An Update is durable when it returns: bbolt syncs the pages of the data
// before the page that makes them current. A failed sync is never tried again:
// after the first failure to store, the engine answers Views only, see
// registry.ErrReadOnly.
//
// One process has the file open at a time. Safe for concurrent use in it.
//
//	db, err := boltmeta.Open(filepath.Join(dir, "state.db"), boltmeta.Options{})
//	...
//	defer db.Close()
package boltmeta
