"""The pages for people: server-rendered, with htmx and two small JavaScript modules of our own."""
