package rotation

import (
	"fmt"
	"regexp"
	"strconv"
)

// TitleForm is what may stand before the version in the title of something that a backend
// keeps: what can be told apart in a record, with room for a version within the 255
// characters that are safe.
var TitleForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9 ._@/-]{0,98}[A-Za-z0-9])?$`)

var titleOfVersion = regexp.MustCompile(`^(.*) v([1-9][0-9]{0,8})$`)

// Title returns what a backend calls that which it keeps of a version: what it is of, and
// the version.
func Title(of string, number int) string { return fmt.Sprintf("%s v%d", of, number) }

// ParseTitle parts a title into what stands before the version, and its number; 0 if
// it ends with none.
func ParseTitle(title string) (of string, number int) {
	m := titleOfVersion.FindStringSubmatch(title)
	if m == nil {
		return title, 0
	}
	number, err := strconv.Atoi(m[2])
	if err != nil {
		return title, 0
	}
	return m[1], number
}
