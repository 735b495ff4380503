// Package github rotates credentials that GitHub gives out.
//
// A deploy key lets a service read (or write) one repository by ssh. A repository
// takes many of them, so that a new one stands beside the old one for as long as
// services need to change over: nothing ever fails. A key's private half is drafted
// here and goes where services read it; GitHub gets the public half. GitHub knows
// no expiry of a key: an old one lives until it is deleted.
//
// A key is known by its fingerprint, which is on the record before GitHub hears of
// the key. So a key whose adding was cut off is found again, and a key that Keyturn
// did not make is never deleted.
//
// See GitHub's pages "Managing deploy keys" and "REST API endpoints for deploy keys".
package github
