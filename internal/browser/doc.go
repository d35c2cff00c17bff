// Package browser tests what a web page can do with the API: it runs the purser program, serves
// a page from another origin, and has Chromium load it. There is nothing in it but tests.
package browser
