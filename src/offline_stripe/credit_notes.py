"""Credit notes: less to pay of an open invoice, money back of a paid one."""

from src.offline_stripe import refunds
from src.offline_stripe.account import Account, Object
from src.offline_stripe.catalog import merged_metadata, metadata_of
from src.offline_stripe.errors import invalid, refused
from src.offline_stripe.listing import list_of, matches, page


def create(account: Account, parameters: Object) -> Object:
    """`POST /v1/credit_notes`: less to pay, or money back of what is paid.

    Raises:
        StripeError: more than the invoice; money back without saying how.
    """
    invoice = account.get("invoice", parameters["invoice"], "invoice")
    lines: list[Object] = parameters.get("lines") or []
    asked = sum(
        each["amount"] if "amount" in each else each["unit_amount"] * each.get("quantity", 1)
        for each in lines
    )
    amount = parameters.get("amount") or asked
    credited = sum(
        each["amount"] for each in account.all("credit_note") if each["invoice"] == invoice["id"]
    )
    if not 1 <= amount <= invoice["total"] - credited:
        raise invalid("The credit note is for more than is left of the invoice", "amount")
    refunded: list[Object] = []
    if invoice["status"] == "paid":
        refunded = _money_back(account, invoice, parameters, amount)
    else:
        invoice["amount_due"] -= amount
        invoice["amount_remaining"] -= amount
    note = account.add(_new(account, invoice, parameters, amount, refunded))
    account.emit("credit_note.created", note)
    return note


def list_notes(account: Account, parameters: Object) -> Object:
    """`GET /v1/credit_notes`."""
    found = (each for each in account.all("credit_note") if matches(each, parameters))
    return page(found, parameters, "/v1/credit_notes")


def update(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/credit_notes/{id}`: its memo and metadata."""
    note = account.get("credit_note", object_id)
    memo = parameters.get("memo", note["memo"])
    metadata = merged_metadata(note, parameters)
    return account.change(note, "credit_note.updated", memo=memo, metadata=metadata)


def list_lines(account: Account, parameters: Object, object_id: str) -> Object:
    """`GET /v1/credit_notes/{id}/lines`."""
    lines = account.get("credit_note", object_id)["lines"]["data"]
    return page(lines, parameters, f"/v1/credit_notes/{object_id}/lines")


def void(account: Account, _parameters: Object, object_id: str) -> Object:
    """`POST /v1/credit_notes/{id}/void`."""
    note = account.get("credit_note", object_id)
    if note["status"] != "issued" or note["type"] != "pre_payment":
        raise refused("You can only void a credit note of an open invoice")
    invoice = account.get("invoice", note["invoice"])
    invoice["amount_due"] += note["amount"]
    invoice["amount_remaining"] += note["amount"]
    return account.change(note, "credit_note.voided", status="void", voided_at=account.now())


def _money_back(account: Account, invoice: Object, parameters: Object, amount: int) -> list[Object]:
    if parameters.get("out_of_band_amount") == amount:
        return []
    if parameters.get("refund_amount") != amount:
        raise invalid(
            "The sum of credit amount, refund amount and out of band amount must equal the credit "
            "note amount.",
            "refund_amount",
        )
    paid = next(each for each in account.all("invoice_payment") if each["invoice"] == invoice["id"])
    asked = {"payment_intent": paid["payment"]["payment_intent"], "amount": amount}
    return [refunds.create(account, asked)]


def _new(
    account: Account, invoice: Object, parameters: Object, amount: int, refunded: list[Object]
) -> Object:
    note_id = account.new_id("cn")
    before_payment = invoice["status"] != "paid"
    line: Object = {
        "id": account.new_id("cnli"),
        "object": "credit_note_line_item",
        "amount": amount,
        "description": None,
        "discount_amount": 0,
        "discount_amounts": [],
        "livemode": False,
        "metadata": {},
        "pretax_credit_amounts": [],
        "quantity": 1,
        "tax_rates": [],
        "taxes": [],
        "type": "custom_line_item",
        "unit_amount": amount,
        "unit_amount_decimal": str(amount),
    }
    return {
        "id": note_id,
        "object": "credit_note",
        "amount": amount,
        "amount_shipping": 0,
        "created": account.now(),
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "customer_account": None,
        "customer_balance_transaction": None,
        "discount_amount": 0,
        "discount_amounts": [],
        "effective_at": account.now(),
        "invoice": invoice["id"],
        "lines": list_of([line], f"/v1/credit_notes/{note_id}/lines"),
        "livemode": False,
        "memo": parameters.get("memo"),
        "metadata": metadata_of(parameters),
        "number": f"{invoice['number'] or 'DRAFT'}-CN-01",
        "out_of_band_amount": parameters.get("out_of_band_amount"),
        "pdf": f"{account.public_url}/credit_notes/{note_id}/pdf",
        "post_payment_amount": 0 if before_payment else amount,
        "pre_payment_amount": amount if before_payment else 0,
        "pretax_credit_amounts": [],
        "reason": parameters.get("reason"),
        "refunds": [
            {
                "amount_refunded": each["amount"],
                "payment_record_refund": None,
                "refund": each["id"],
                "type": "refund",
            }
            for each in refunded
        ],
        "shipping_cost": None,
        "status": "issued",
        "subtotal": amount,
        "subtotal_excluding_tax": amount,
        "total": amount,
        "total_excluding_tax": amount,
        "total_taxes": [],
        "type": "pre_payment" if before_payment else "post_payment",
        "voided_at": None,
    }
