package layers

// room is the memory that the check of one archive has been given.
type room struct {
	ask   func(bytes int64) error // Options.Room
	given int64                   // bytes
}

// roomPiece is how much is asked for at a time.
const roomPiece = 1 << 20

// need asks for what is missing of bytes.
func (r *room) need(bytes int64) error {
	if r.ask == nil || bytes <= r.given {
		return nil
	}
	more := (bytes - r.given + roomPiece - 1) / roomPiece * roomPiece
	if err := r.ask(more); err != nil {
		return err
	}
	r.given += more
	return nil
}

// What Check takes at most, in bytes. The test measures both.
const (
	entryBytes = 192 // of an entry without its names, in the tree
	nameCopies = 1   // of each name
)

// known returns what is known of so many entries, with names of so many bytes.
func known(entries int, names int64) int64 { return int64(entries)*entryBytes + names*nameCopies }

// streamBytes returns what reading an archive takes, however long it is: for
// each member on its way through gunzip a buffer and the member itself, and the
// extension headers of an entry, here and in archive/tar.
func streamBytes() int64 {
	return int64(parallel()+3)*memberBytes + int64(parallel())*memberMax + 4<<20
}
