"""The console: what support, finance and operators do in a browser, at `/console`.

A page is a router's function in `pages/`, with its template in `templates/`. To add one:

1. Write `pages/NAME.py` with `router = APIRouter()` and list it in `pages/__init__.py`; a page in
   the navigation also gets its line in `navigation.py`.
2. Each route asks for the person, and by that for one permission of `permissions.py`:
   `person: Annotated[Person, require(Permission.USERS_SEE)]`. A test walks all routes: one without
   a permission, and one missing from the matrix, fails.
3. Answer with `render(request, person, "NAME.html", …)`; the template extends `layout.html`.
   `{{ path("console_NAME") }}` is the address of a route. What a template prints is escaped.
4. A route that changes something takes `form: Annotated[Form, posted()]`: it has refused foreign
   pages, and brings `form.key`, the idempotency key of the form at this address. Its template
   writes `{% call form_to(path(…)) %}…{% endcall %}` of `macros.html`. Show first what it will do:
   unless `form.is_confirmed`, answer `confirm(request, person, form, …)` with what
   `preview(session, work)` found. Then do it, and answer `done(request, "sentence", "console_X")`.
5. In one database transaction: stop where `is_recorded(session, form.key)`, for then this form was
   done; do it, with `person.actor`; `record(session, person, "users.change", user_id=…, reason=…,
   before=…, after=…, key=form.key)`. Pages that show somebody's personal data record it likewise,
   without a key: `record(session, person, "users.see", user_id=…)`.
6. Errors of the project (`ExceptionWithErrorType`) may just be raised: they become a page with the
   sentence and the status of their kind. To keep a form on the screen, catch the error and
   `render(…, problem=error, form=form)`: its fields keep what was written.
7. A chart is `Chart(…)` of `charts.py` and `{{ chart(…) }}` of `macros.html`: the figures stand in
   a table below it, always.
"""
