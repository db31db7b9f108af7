"""The use case: the way of a request on one page.

In: a RerankRequest and its context. Out: a RerankResult, or a ServiceError. Knows neither JSON nor HTTP.
"""
